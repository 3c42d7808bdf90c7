"""Total variation by its duality gap and on a step; means of alike places written out."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.linalg.image_priors import divergence, gradient, non_local_means, total_variation


def objective(z: np.ndarray, y: np.ndarray, weight: float) -> float:
    return float(np.square(z - y).sum() / 2 + weight * np.sqrt(np.square(gradient(z)).sum(0)).sum())


def test_divergence_is_minus_the_adjoint() -> None:
    rng = np.random.default_rng(0)
    z, p = rng.standard_normal((5, 7)), rng.standard_normal((2, 5, 7))
    assert (gradient(z) * p).sum() == pytest.approx(-(z * divergence(p)).sum())


def test_nothing_near_has_less_total_variation_at_the_price() -> None:
    rng = np.random.default_rng(1)
    y = rng.standard_normal((12, 9))
    found = total_variation(y, 0.4, tolerance=1e-9, max_iter=5000)
    least = objective(found, y, 0.4)
    for size in (1e-3, 1e-2, 1e-1, 1.0):
        for _ in range(50):
            assert objective(found + size * rng.standard_normal(y.shape), y, 0.4) > least
    for share in (0.01, 0.1):
        assert objective((1 - share) * found + share * y, y, 0.4) > least
        assert objective((1 - share) * found + share * y.mean(), y, 0.4) > least


def test_a_step_loses_what_its_edge_costs() -> None:
    """Rows of a step between halves of n columns move by weight / n towards each other."""
    y = np.repeat([[0.0, 0, 0, 0, 1, 1, 1, 1]], 6, axis=0)
    found = total_variation(y, 0.4, tolerance=1e-12, max_iter=20000)
    np.testing.assert_allclose(found, np.where(y > 0, 0.9, 0.1), atol=1e-4)
    assert total_variation(y, 0.0) is y


def test_means_of_alike_places_are_those_written_out() -> None:
    rng = np.random.default_rng(2)
    y = rng.standard_normal((9, 8))
    found = non_local_means(y, 0.7, side=3, reach=2, strength=0.9)
    padded = np.pad(y, 2, mode="symmetric")

    def shifted(down: int, right: int) -> np.ndarray:
        return padded[2 + down : 11 + down, 2 + right : 10 + right]

    i, j = 4, 3
    total = mass = 0.0
    for down in range(-2, 3):
        for right in range(-2, 3):
            squares = np.square(y - shifted(down, right))[i - 1 : i + 2, j - 1 : j + 2]
            weight = np.exp(-max(squares.mean() - 2 * 0.7**2, 0) / (0.9 * 0.7) ** 2)
            total, mass = total + weight * shifted(down, right)[i, j], mass + weight
    assert found[i, j] == pytest.approx(total / mass, rel=1e-10)
    assert non_local_means(y, 0.0) is y
