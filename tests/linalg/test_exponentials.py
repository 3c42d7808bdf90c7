"""Fits of exponentials against a general least squares solver, and their standard errors against draws."""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from eckart.linalg.exponentials import exponentials, fit_exponentials, strongest_left


def tensor_of(w: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.einsum("ap,bp,p->ab", exponentials(w[:, 0], 7), exponentials(w[:, 1], 9), c)


def noisy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    w, c = np.array([[0.4, -1.0], [-0.7, 0.5]]), np.array([1.0, 0.5 + 0.5j])
    noise = rng.standard_normal((7, 9)) + 1j * rng.standard_normal((7, 9))
    return tensor_of(w, c) + 0.05 * noise, w


def test_a_fit_is_the_least_squares_fit() -> None:
    tensor, w = noisy(0)
    found, c, _, rest = fit_exponentials(tensor, w + 0.05)

    def residual(z: np.ndarray) -> np.ndarray:
        left = (tensor_of(z[:4].reshape(2, 2), z[4:6] + 1j * z[6:]) - tensor).ravel()
        return np.concatenate([left.real, left.imag])

    best = least_squares(residual, np.concatenate([w.ravel(), np.ones(2), np.zeros(2)]), xtol=1e-14, ftol=1e-14)
    np.testing.assert_allclose(found.ravel(), best.x[:4], atol=1e-6)
    np.testing.assert_allclose(c, best.x[4:6] + 1j * best.x[6:], atol=1e-5)
    np.testing.assert_allclose(rest, 2 * best.cost, rtol=1e-8)
    fixed = fit_exponentials(tensor, w, steps=0)
    assert (fixed[0] == w).all()
    assert fixed[3] > rest


def test_standard_errors_are_those_of_draws() -> None:
    scores = []
    for seed in range(40):
        tensor, w = noisy(seed)
        found, _, deviations, _ = fit_exponentials(tensor, w)
        scores.append((found - w) / deviations)
    assert 0.85 < np.sqrt(np.mean(np.square(scores))) < 1.15


def test_what_is_left_is_found() -> None:
    w, c = np.array([[0.4, -1.0], [2 * np.pi / 7, -2 * np.pi / 9]]), np.array([1.0, 0.5])
    peak, height = strongest_left(tensor_of(w, c), w[:1], c[:1])
    np.testing.assert_allclose(peak, w[1])
    np.testing.assert_allclose(height, 63)
