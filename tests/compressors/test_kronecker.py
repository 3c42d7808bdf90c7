"""Sums of Kronecker products against the SVD of the rearranged matrix."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import eckart
from eckart import METHODS
from eckart.structures import Kronecker
from support import hard
from support.blocks_and_sums import NOTHING, dense, shapes

few = settings(deadline=None, max_examples=25)


def second_factor(n: int) -> int:
    return max(d for d in range(1, 17) if n % d == 0 and d * d <= n)


@shapes
def test_kronecker_terms_are_singular_vectors_of_the_rearranged_matrix(shape: tuple[int, int]) -> None:
    weight = hard.normal(*shape, seed=3)
    (out, columns), (c, d) = shape, map(second_factor, shape)
    rows = [
        weight[i * c : (i + 1) * c, j * d : (j + 1) * d].reshape(-1)
        for i in range(out // c)
        for j in range(columns // d)
    ]
    u, s, vh = torch.linalg.svd(torch.stack(rows), full_matrices=False)
    expected = torch.zeros_like(weight)
    for t in range(min(3, len(s))):
        expected += s[t] * torch.kron(u[:, t].reshape(out // c, columns // d), vh[t].reshape(c, d))
        structure = eckart.fit(weight, "kronecker", terms=t + 1)
        torch.testing.assert_close(dense(structure), expected)
        assert structure.cost().parameters == (t + 1) * (out // c * (columns // d) + c * d)


@few
@given(st.integers(1, 3), st.sampled_from([(12, 24), (24, 16), (16, 36), (64, 7), (5, 48)]))
def test_a_sum_of_kronecker_products_is_recovered(terms: int, shape: tuple[int, int]) -> None:
    (out, columns), (c, d) = shape, map(second_factor, shape)
    weight = torch.zeros(shape, dtype=torch.float64)
    for t in range(terms):
        weight += torch.kron(hard.normal(out // c, columns // d, seed=t), hard.normal(c, d, seed=10 + t))
    family = METHODS["kronecker"].entry(weight, NOTHING)
    terms = min(terms, len(family.tails) - 1)
    torch.testing.assert_close(dense(family.build(terms).structure), weight)
    assert float(family.tails[terms]) <= 1e-25 * family.zero_error


def test_no_pair_of_factors_does_better_than_one_term() -> None:
    weight = hard.normal(16, 36, seed=4)
    least = float(METHODS["kronecker"].entry(weight, NOTHING).tails[1])
    a, b = hard.normal(4, 6, seed=5).requires_grad_(), hard.normal(4, 6, seed=6).requires_grad_()
    optimizer = torch.optim.LBFGS([a, b], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (weight - torch.kron(a, b)).square().sum()
        error.backward()
        return error

    optimizer.step(loss)
    assert float(loss().detach()) >= least * (1 - 1e-9)


def test_kronecker_is_one_structure_of_any_number_of_terms() -> None:
    weight = hard.normal(24, 36)
    one, three = (eckart.fit(weight, "kronecker", terms=t) for t in (1, 3))
    assert isinstance(one, Kronecker)
    assert isinstance(three, Kronecker)
    assert one.left.shape == (6, 6)
    assert three.left.shape == (3, 6, 6)
    prime = METHODS["kronecker"].entry(hard.normal(13, 17), NOTHING)
    assert list(prime.sizes) == []
