"""Monarch against the SVD of every block."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import eckart
from eckart import METHODS
from eckart.structures import BlockDiagonal, Chain, Monarch, Permutation
from support import hard
from support.blocks_and_sums import NOTHING, dense, shapes


def blocks_of(n: int) -> int:
    return max(d for d in range(1, 5) if n % d == 0 and (d == 1 or n // d >= 3))


@shapes
@pytest.mark.parametrize("terms", [1, 2, 3])
def test_monarch_is_the_svd_of_every_block(shape: tuple[int, int], terms: int) -> None:
    weight = hard.normal(*shape, seed=2)
    p, q = (n // blocks_of(n) for n in shape)
    terms = min(terms, p, q)
    expected = torch.zeros_like(weight)
    a = blocks_of(shape[0])
    for i in range(a):
        for j in range(0, shape[1], q):
            u, s, vh = torch.linalg.svd(weight[i::a, j : j + q], full_matrices=False)
            for t in range(terms):
                expected[i::a, j : j + q] += s[t] * torch.outer(u[:, t], vh[t])
    structure = eckart.fit(weight, "monarch", terms=terms)
    torch.testing.assert_close(dense(structure), expected)
    a, b = map(blocks_of, shape)
    assert structure.cost().parameters == terms * (a * shape[1] + b * shape[0])


def monarch_of(left: Tensor, right: Tensor) -> Tensor:
    """The paper's M = P L P^T R: L and R (blocks, n / blocks, n / blocks), P the transposition of a table."""
    blocks, size, _ = left.shape
    n = blocks * size
    columns = []
    for x in torch.eye(n, dtype=left.dtype):
        y = torch.cat([block @ part for block, part in zip(right, x.view(blocks, size), strict=True)])
        y = y.view(size, blocks).T.flatten()
        y = torch.cat([block @ part for block, part in zip(left, y.view(blocks, size), strict=True)])
        columns.append(y.view(blocks, size).T.flatten())
    return torch.stack(columns, 1)


@pytest.mark.parametrize("n", [16, 32, 48])
def test_monarch_matrices_of_the_paper_are_recovered(n: int) -> None:
    M = monarch_of(hard.normal(4, n // 4, n // 4), hard.normal(4, n // 4, n // 4, seed=1))
    family = METHODS["monarch"].entry(M, NOTHING)
    torch.testing.assert_close(dense(family.build(n // 16).structure), M)
    assert n == 16 or family.build(n // 16 - 1).error > 1e-3 * family.zero_error


def test_the_fourier_transform_of_16_is_monarch() -> None:
    # The cosine of a sum of two angles has rank two in them, and so has the sine.
    angle = 2 * math.pi / 16 * torch.arange(16.0).double().outer(torch.arange(16.0).double())
    order = torch.arange(16).view(4, 4).T.flatten()  # decimation in time
    for part in (angle.cos(), angle.sin()):
        family = METHODS["monarch"].entry(part[:, order], NOTHING)
        torch.testing.assert_close(dense(family.build(2).structure), part[:, order])


@shapes
def test_a_matrix_of_rank_one_blocks_is_recovered_by_one_term(shape: tuple[int, int]) -> None:
    a, b = map(blocks_of, shape)
    p, q = shape[0] // a, shape[1] // b
    weight = torch.zeros(shape, dtype=torch.float64)
    for i in range(a):
        for j in range(b):
            u, v = hard.normal(p, seed=i * b + j), hard.normal(q, seed=100 + i * b + j)
            weight[i::a, j * q : (j + 1) * q] = torch.outer(u, v)
    torch.testing.assert_close(dense(eckart.fit(weight, "monarch", terms=1)), weight)


def test_monarch_is_two_batched_products_between_permutations() -> None:
    structure = eckart.fit(hard.normal(24, 16), "monarch", terms=2)
    assert isinstance(structure, Monarch)
    assert structure.left.shape == (4, 6, 8)
    assert structure.right.shape == (4, 8, 4)
    written_out = Chain(
        Permutation(torch.arange(24).view(4, 6).T.flatten()),
        BlockDiagonal(structure.left.detach()),
        Permutation(torch.arange(32).view(4, 4, 2).transpose(0, 1).flatten()),
        BlockDiagonal(structure.right.detach()),
    )
    torch.testing.assert_close(dense(written_out), dense(structure))
    low_rank = eckart.fit(hard.normal(13, 17), "monarch", terms=2)
    assert [leaf.shape for leaf in low_rank.leaves().values()] == [(1, 13, 2), (1, 2, 17)]
