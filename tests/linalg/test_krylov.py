"""Krylov methods against direct solutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator

from eckart.errors import Refused
from eckart.linalg.krylov import lsqr, minres, pcg
from eckart.structures import Dense, Kronecker
from support import hard
from support.squares import gram


def test_whatever_the_matrix_is_given_as() -> None:
    W = gram(12)
    b = hard.normal(12, 3, seed=4)
    expected = torch.linalg.solve(W, b)
    a = W.numpy()
    for A in (Dense(W), W, a, sparse.csr_array(a), sparse.coo_matrix(a), aslinearoperator(a)):
        for method in (pcg, minres, lsqr):
            found = method(A, b)
            assert found.converged, (method, found.message)
            torch.testing.assert_close(found.value, expected, rtol=1e-6, atol=1e-7)
            assert isinstance(method(A, b.numpy()).value, np.ndarray)
    for method in (pcg, minres):
        assert torch.equal(method(lambda x: W @ x, b).value, method(W, b).value)
        assert np.allclose(
            method(lambda x: a @ x, b.numpy(), shift=0.5).value, np.linalg.solve(a + 0.5 * np.eye(12), b)
        )
    assert lsqr(lambda x: W @ x, b, adjoint=lambda x: W.T @ x).converged
    with pytest.raises(Refused, match="adjoint="):
        lsqr(lambda x: W @ x, b)


def test_a_preconditioner_saves_steps_and_a_start_too() -> None:
    scale = torch.logspace(0, 6, 40, dtype=torch.float64)
    W = scale.sqrt()[:, None] * gram(40) * scale.sqrt()
    b = hard.normal(40)
    plain, helped = pcg(W, b), pcg(W, b, preconditioner=lambda r: r / scale[:, None])
    assert helped.iterations < plain.iterations / 2
    torch.testing.assert_close(helped.value, torch.linalg.solve(W, b), rtol=1e-5, atol=1e-9)
    assert pcg(W, b, start=helped.value, tolerance=1e-8).iterations <= 1


def test_minres_is_right_where_matrices_are_indefinite() -> None:
    q = hard.orthogonal(20)
    W = q * torch.linspace(-1, 1, 20, dtype=torch.float64) @ q.T
    b = hard.normal(20, 2)
    found = minres(W, b)
    torch.testing.assert_close(found.value, torch.linalg.solve(W, b), rtol=1e-6, atol=1e-6)
    with pytest.raises(Refused, match=r"negative curvature: take krylov.minres"):
        pcg(W, b)
    residuals = [float((b - W @ minres(W, b, iterations=k, tolerance=0.0).value).norm()) for k in range(8)]
    assert residuals == sorted(residuals, reverse=True)


@pytest.mark.parametrize(
    "name", ["general", "rank-deficient", "rank-deficient-tall", "zero", "1xn", "nx1", "tall", "fp32"]
)
def test_lsqr_gives_the_shortest_least_squares_solution(name: str) -> None:
    W = hard.weights()[name].double()
    b = hard.normal(len(W), 2, seed=3)
    found = lsqr(W, b)
    assert found.converged
    torch.testing.assert_close(found.value, torch.linalg.pinv(W, rtol=1e-10) @ b, rtol=1e-5, atol=1e-6)
    ridge = lsqr(W, b, damping=0.5).value
    torch.testing.assert_close(
        ridge, torch.linalg.solve(W.T @ W + 0.25 * torch.eye(W.shape[1]), W.T @ b), rtol=1e-6, atol=1e-7
    )


def test_what_is_not_reached_is_said() -> None:
    W = hard.weights()["hilbert"]
    found = pcg(W @ W.T, hard.normal(12), iterations=2)
    assert not found.converged
    assert "above" in found.message
    assert found.calls == found.iterations + 1
    zero = pcg(torch.eye(3), torch.zeros(3))
    assert zero.converged
    assert not zero.value.any()
    with pytest.raises(Refused):
        pcg(torch.eye(3), torch.full((3,), torch.nan))


def test_a_structure_in_float32_is_multiplied_in_float64() -> None:
    left, right, b = gram(3).float(), gram(4).float(), hard.normal(12)
    expected = torch.linalg.solve(torch.kron(left.double(), right.double()), b)
    torch.testing.assert_close(pcg(Kronecker(left, right), b).value, expected, rtol=1e-6, atol=1e-6)
