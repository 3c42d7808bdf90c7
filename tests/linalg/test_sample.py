"""Draws from covariances that are structures."""

from __future__ import annotations

import pytest
import torch

from eckart.errors import Refused
from eckart.linalg import sample
from eckart.linalg.sample import root
from eckart.structures import Dense, Diagonal, Scaled, Toeplitz, low_rank
from support import hard
from support.squares import DEFINITE, thin


def test_the_factor_that_draws_is_one_of_the_covariance() -> None:
    """Exact, where moments of draws would be compared up to chance: draws are F z with F F^T = A + shift I."""
    for name, make in DEFINITE.items():
        for shift in (0.0, 0.7):
            A = make()
            W = A.to_dense().detach().double()
            with torch.no_grad():
                factor, width = root(A, shift)
                F = factor(torch.eye(width, dtype=torch.float64))
            torch.testing.assert_close(F @ F.T, W + shift * torch.eye(len(W)), msg=name)


def test_draws_have_the_covariance() -> None:
    A = DEFINITE["low-rank-plus-diagonal"]()
    x = sample(A, 20_000, shift=0.5, generator=torch.Generator().manual_seed(0))
    W = A.to_dense().detach() + 0.5 * torch.eye(9)
    # An entry of the mean of products has a variance of (w_ii w_jj + w_ij^2) / count; 81 entries beyond 5 sigma: 5e-5.
    sigma = ((torch.outer(W.diagonal(), W.diagonal()) + W**2) / len(x)).sqrt()
    assert float(((x.T @ x / len(x) - W).abs() / sigma).max()) < 5
    assert torch.equal(
        sample(A, 3, generator=torch.Generator().manual_seed(1)),
        sample(A, 3, generator=torch.Generator().manual_seed(1)),
    )


def test_semi_definite_covariances_do() -> None:
    for A in (thin(6, 2), Diagonal(torch.zeros(4)), Dense(torch.ones(3, 3)), Scaled(thin(5, 1), scale=2.0)):
        assert torch.isfinite(sample(A, 4)).all()
    x = sample(thin(6, 2), 5)
    assert int(torch.linalg.matrix_rank(x, tol=1e-9)) == 2
    assert sample(thin(6, 2), 0).shape == (0, 6)


def test_a_short_toeplitz_matrix_that_no_circulant_continues_is_drawn_from() -> None:
    matrix = Toeplitz(torch.tensor([0.0, 0.7, 1.0, 0.7, 0.0], dtype=torch.float64), columns=3)
    x = sample(matrix, 20000, generator=torch.Generator().manual_seed(0))
    assert (x.T @ x / 20000 - matrix.to_dense()).abs().max() < 0.05


def test_what_is_no_covariance_is_refused() -> None:
    with pytest.raises(Refused, match="eigenvalue -1"):
        sample(Diagonal(torch.tensor([1.0, -1.0])), 2)
    with pytest.raises(Refused, match="not F F"):
        sample(low_rank(hard.normal(4, 1), hard.normal(1, 4, seed=2)), 2)
    with pytest.raises(Refused, match=r"eigenvalue -0\.27"):
        sample(Toeplitz(torch.tensor([0.0, 0.9, 1.0, 0.9, 0.0]), columns=3), 2)
    with pytest.raises(Refused, match="circulant that continues it"):
        sample(Toeplitz(torch.ones(2 * 5000 - 1).index_fill(0, torch.tensor([0, 9998]), -1.0), columns=5000), 2)
    with pytest.raises(Refused, match="count=-1"):
        sample(Diagonal(torch.ones(2)), -1)
