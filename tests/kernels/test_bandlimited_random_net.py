"""Networks with drawn weights: ridge regression and its criterion written out, scales, bounds on coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.kernels.bandlimited_random_net import RandomNet, bandlimit_error, hidden, validated


def waves(k: float, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-1, 1, n)[:, None]
    return x, np.sin(k * x[:, 0])


def test_coefficients_and_criterion_are_those_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    h, y = rng.standard_normal((30, 6)), rng.standard_normal(30)
    h, y = h - h.mean(0), y - y.mean()
    largest = np.linalg.norm(h, 2) ** 2
    best = np.inf
    for ridge in (1e-3, 0.1, 1.0):
        inverse = np.linalg.inv(h.T @ h + ridge * largest * np.eye(6))
        smoother = h @ inverse @ h.T + 1 / 30
        criterion = 30 * np.square(y - smoother @ y).sum() / (30 - np.trace(smoother)) ** 2
        found = validated(h, y, np.array([ridge]))
        np.testing.assert_allclose(found[1], inverse @ h.T @ y, rtol=1e-9)
        assert found[0] == pytest.approx(criterion)
        assert found[2] == pytest.approx(np.trace(smoother))
        best = min(best, criterion)
    assert validated(h, y, np.array([1e-3, 0.1, 1.0]))[0] == pytest.approx(best)


def test_the_scale_goes_with_the_frequency() -> None:
    scales, errors = [], {}
    for k in (2.0, 40.0):
        x, y = waves(k)
        fitted = RandomNet(100, random_state=0).fit(x, y)
        scales.append(fitted.scale_)
        new = np.linspace(-0.95, 0.95, 77)[:, None]
        errors[k] = np.abs(fitted.predict(new) - np.sin(k * new[:, 0])).max()
    assert errors[2.0] < 1e-5
    assert errors[40.0] < 0.05
    assert scales[1] > scales[0]
    x, y = waves(40.0)
    off = [np.abs(RandomNet(100, scale=r, random_state=0).fit(x, y).predict(x) - y).max() for r in (0.5, 1000.0)]
    assert min(off) > 0.1


def test_large_coefficients_are_said() -> None:
    x, y = waves(25.0)
    with pytest.warns(UserWarning, match="rounds predictions"):
        fitted = RandomNet(400, scale=0.5, ridge=0.0, random_state=0).fit(x, 1e6 * y)
    assert fitted.rounding_ > 5
    net = RandomNet(20, activation="relu", random_state=1).fit(x, y)
    inner = (x - net.centre_) / net.half_range_
    np.testing.assert_allclose(
        net.predict(x), hidden(inner, net.weights_, net.offsets_, "relu") @ net.coef_ + net.intercept_
    )


def test_the_floor_is_one_of_the_coefficients() -> None:
    x, y = waves(6.0)
    norms = np.logspace(0, 8, 9)
    found = bandlimit_error(x, y, 1.0, norms, n_units=300, generator=0)
    assert (np.diff(found) <= 0).all()
    assert found[0] > 0.5
    assert found[-1] < 1e-3
    wide = bandlimit_error(x, y, 8.0, 1e3, n_units=300, generator=0)
    assert wide < bandlimit_error(x, y, 1.0, 1e3, n_units=300, generator=0)
    # The multiplier: the error is that of ridge regression of the same norm.
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1, 1, (300, 2))
    h = np.tanh(x @ drawn[:, :1].T - drawn[:, 1]) / np.sqrt(300)
    c = np.linalg.solve(h.T @ h + 1e-3 * np.eye(300), h.T @ y)
    error = np.sqrt(np.square(h @ c - y).mean())
    assert bandlimit_error(x, y, 1.0, np.linalg.norm(c), n_units=300, generator=0) == pytest.approx(error, rel=1e-6)


def test_bad_arguments_are_refused() -> None:
    x, y = waves(1.0, 10)
    for wrong in ({"n_units": 0}, {"scale": 0.0}, {"scale": "auto"}, {"ridge": -1.0}, {"activation": "gelu"}):
        with pytest.raises(Refused):
            RandomNet(**wrong).fit(x, y)
    with pytest.raises(Refused):
        bandlimit_error(x, y, 1.0, 0.0)
