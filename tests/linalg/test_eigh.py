"""Eigenvalues and eigenvectors of structures against their dense forms."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg import eigh
from eckart.structures import Chain, Circulant, Cosine, Dense, Diagonal, Householder, Kronecker, Permutation
from support import hard
from support.squares import DEFINITE

NONE = {"toeplitz", "low-rank-plus-diagonal", "low-rank-plus-identity", "low-rank-plus-blocks"}


def test_they_rebuild_the_matrix() -> None:
    for name, make in DEFINITE.items():
        A = make()
        if name in NONE:
            with pytest.raises(Refused, match="eigh has no rule"):
                eigh(A)
            continue
        found, W = eigh(A), A.to_dense().detach().double()
        V = found.vectors().detach()
        torch.testing.assert_close(V.T @ V, torch.eye(len(V), dtype=torch.float64), msg=name)
        torch.testing.assert_close(V * found.values.detach() @ V.T, W, msg=name)
        x = hard.normal(len(V), 2)
        root = found.function(torch.sqrt, found.function(torch.sqrt, x)).detach()
        torch.testing.assert_close(root, W @ x, msg=name)
        torch.testing.assert_close(found.adjoint(x).detach(), V.T @ x, msg=name)


def test_gradients_go_through_the_values_where_they_repeat() -> None:
    left = torch.eye(3, dtype=torch.float64)
    A = Kronecker(left, left.clone())
    eigh(A).values.square().sum().backward()
    expected = 2 * left * 3
    torch.testing.assert_close(A.left.grad, expected)


@pytest.mark.parametrize(
    ("A", "words"),
    [
        (Dense(hard.normal(3, 3)), "not symmetric: take it of the mean"),
        (Kronecker(torch.ones(2, 2, 2), torch.ones(2, 2, 2)), "a sum of products"),
        (Chain(Cosine(4), Diagonal(torch.ones(4)), Cosine(4)), "not Q D Q"),
        (Chain(Householder(hard.normal(2, 4)), Diagonal(torch.ones(4)), Householder(hard.normal(2, 4))), "not Q D Q"),
        (Chain(*3 * [Permutation(torch.tensor([1, 2, 0]))]), "not Q D Q"),
        (Dense(torch.ones(1, 2)), "square"),
    ],
)
def test_what_is_not_symmetric_is_refused(A: Dense, words: str) -> None:
    with pytest.raises(Refused, match=words):
        eigh(A)


def test_what_is_not_symmetric_is_not_taken_for_rounded() -> None:
    column = torch.randn(12, generator=torch.Generator().manual_seed(0)) * 0.1
    column[0] = 3
    even = column + column.flip(0).roll(1)
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        with pytest.raises(Refused, match="not symmetric"):
            eigh(Circulant(column.to(dtype)))
        expected = torch.linalg.eigvalsh(Circulant(even.to(dtype)).to_dense().double())
        torch.testing.assert_close(eigh(Circulant(even.to(dtype))).values.sort().values, expected)
