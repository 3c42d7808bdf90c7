"""Blind gain calibration against a general solver, and its steps against their gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from eckart.errors import Refused
from eckart.estimators.blind_gain import alternating_step, blind_gains, descent_step
from eckart.estimators.self_calibration_ls import planted_gains


def noisy(noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, y, d, x = planted_gains(rng)
    return a, y + noise * rng.standard_normal(y.shape), d, x


def cost(a: np.ndarray, y: np.ndarray, d: np.ndarray, x: np.ndarray) -> float:
    return float(np.square(d * (a @ x) - y).sum())


def test_a_step_goes_along_both_gradients_by_the_best_lengths() -> None:
    a, y, _, _ = noisy()
    rng = np.random.default_rng(1)
    d, x, h = 1 + 0.1 * rng.standard_normal(24), rng.standard_normal(8), 1e-6
    d /= d.mean()
    gx = np.array([cost(a, y, d, x + h * e) - cost(a, y, d, x - h * e) for e in np.eye(8)])
    gd = np.array([cost(a, y, d + h * e, x) - cost(a, y, d - h * e, x) for e in np.eye(24)])
    gd -= gd.mean()
    stepped, moved = descent_step(a, y, d, x, np.inf)
    for move, gradient in ((x - moved, gx), (d - stepped, gd)):
        np.testing.assert_allclose(move / np.linalg.norm(move), gradient / np.linalg.norm(gradient), atol=1e-5)
    for t in (0.9, 1.1):
        assert cost(a, y, d, x + t * (moved - x)) > cost(a, y, d, moved)
        assert cost(a, y, d + t * (stepped - d), x) > cost(a, y, stepped, x)
    assert stepped.mean() == pytest.approx(1)


@pytest.mark.parametrize("options", [{}, {"start": "ones"}, {"method": "pgd"}, {"method": "pgd", "start": "ls"}])
def test_every_way_ends_at_the_minimum_of_a_general_solver(options: dict[str, str]) -> None:
    a, y, d, x = noisy()
    found = blind_gains(a, y, tolerance=1e-12, max_iter=4000, **options)  # type: ignore[arg-type]
    best = least_squares(
        lambda z: (z[:24] * (a @ z[24:]) - y).ravel(), np.concatenate([d, x]), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    gains = best.x[:24] / best.x[:24].mean()
    np.testing.assert_allclose(found.value.gains, gains, atol=2e-4)
    np.testing.assert_allclose(found.value.signal, best.x[24:] * best.x[:24].mean(), atol=2e-4)
    assert found.error * np.linalg.norm(y) == pytest.approx(np.sqrt(2 * best.cost), rel=1e-6)


def test_gains_that_are_known_leave_plain_least_squares() -> None:
    a, y, _, _ = noisy()
    found = blind_gains(a, y, rho=0.0).value
    np.testing.assert_array_equal(found.gains, 1)
    np.testing.assert_allclose(found.signal, np.linalg.lstsq(a.reshape(-1, 8), y.ravel(), rcond=None)[0], rtol=1e-8)
    bounded = blind_gains(a, y, rho=0.2).value.gains
    assert np.abs(bounded - 1).max() <= 0.2 + 1e-12


def test_alternating_never_goes_up() -> None:
    a, y, _, _ = noisy(1.0)
    d, x = np.ones(24), np.zeros(8)
    before = np.inf
    for _ in range(10):
        d, x = alternating_step(a, y, d, x, np.inf)
        assert cost(a, y, d, x) <= before * (1 + 1e-12)
        before = cost(a, y, d, x)


def test_what_cannot_be_met_is_refused() -> None:
    a, y, _, _ = noisy()
    with pytest.raises(Refused, match="rho=-1"):
        blind_gains(a, y, rho=-1)
    with pytest.raises(Refused, match="method='newton'"):
        blind_gains(a, y, method="newton")  # type: ignore[arg-type]
    with pytest.raises(Refused, match="31 measurements"):
        blind_gains(a[:1], y[:1])
