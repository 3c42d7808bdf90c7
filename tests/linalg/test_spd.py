"""Means and tangents of positive definite matrices: their invariance, their conditions, and back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import logm

from eckart.errors import Refused
from eckart.linalg.spd import affine_mean, checked_definite, from_tangent, spd_function, tangent_vectors


def matrices(n: int = 6, p: int = 4) -> np.ndarray:
    a = np.random.default_rng(0).standard_normal((n, p, 3 * p))
    return a @ np.swapaxes(a, 1, 2)


def test_a_function_is_that_of_the_matrix() -> None:
    a = matrices()[0]
    np.testing.assert_allclose(spd_function(a, np.log), logm(a), atol=1e-12)


def test_the_mean_follows_a_change_of_coordinates_and_of_two_lies_between() -> None:
    a = matrices()
    b = np.random.default_rng(1).standard_normal((4, 4))
    mean = affine_mean(a)
    assert mean.converged
    np.testing.assert_allclose(affine_mean(b @ a @ b.T).value, b @ mean.value @ b.T, rtol=1e-7)
    np.testing.assert_allclose(affine_mean(np.linalg.inv(a)).value, np.linalg.inv(mean.value), rtol=1e-7, atol=1e-10)
    x, y = a[:2]
    # A # B is the positive definite solution of X A^-1 X = B.
    middle = affine_mean(a[:2]).value
    np.testing.assert_allclose(middle @ np.linalg.solve(x, middle), y, rtol=1e-7)


def test_a_mean_of_matrices_far_apart_converges() -> None:
    a = np.array([np.diag(np.roll([1e3, 1.0, 1e-3], i)) for i in range(3)])
    q = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3, 3)))[0]
    assert affine_mean(q @ a @ np.swapaxes(q, 1, 2), tolerance=1e-7).converged
    np.testing.assert_allclose(affine_mean(a).value, np.eye(3), atol=1e-6)


def test_a_mean_of_ill_conditioned_matrices_takes_few_steps() -> None:
    rng = np.random.default_rng(3)
    q = np.linalg.qr(rng.standard_normal((30, 6, 6)))[0]
    found = affine_mean((q * np.exp(rng.uniform(-5, 5, (30, 1, 6)))) @ np.swapaxes(q, 1, 2))
    assert found.converged
    assert found.iterations <= 25  # Steps of length one take 100 and more.


def test_tangent_vectors_have_the_distance_as_their_length_and_come_back() -> None:
    a = matrices()
    vectors = tangent_vectors(a, a[1])
    values = np.linalg.eigvals(np.linalg.solve(a[1], a[0])).real
    assert np.linalg.norm(vectors[0]) == pytest.approx(np.sqrt(np.square(np.log(values)).sum()))
    assert np.abs(vectors[1]).max() < 1e-12
    np.testing.assert_allclose(from_tangent(vectors, a[1]), a, rtol=1e-9, atol=1e-9)


def test_what_is_singular_is_named() -> None:
    a = matrices()
    a[2] = np.outer(a[2, 0], a[2, 0])
    with pytest.raises(Refused, match="trial 2 has rank 1 of 4"):
        checked_definite(a, "trial")
