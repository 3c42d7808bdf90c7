"""The threshold from where keeping and dropping cost the same, and the median of noise from noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from eckart.linalg.singular_value_threshold import marchenko_pastur_median, optimal_threshold, threshold


@pytest.mark.parametrize("beta", [0.05, 0.4, 1.0])
def test_at_the_threshold_keeping_and_dropping_cost_the_same(beta: float) -> None:
    """A signal x is seen as y, its vectors turned by angles of cosines c and d; the error is x^2 + y^2 - 2 x y c d."""

    def gain(x: float) -> float:
        y = np.sqrt((x + 1 / x) * (x + beta / x))
        c = np.sqrt((x**4 - beta) / (x**4 + beta * x**2))
        d = np.sqrt((x**4 - beta) / (x**4 + x**2))
        return float(y**2 - 2 * x * y * c * d)

    x = brentq(gain, beta**0.25 + 1e-9, 10)
    assert np.sqrt((x + 1 / x) * (x + beta / x)) == pytest.approx(optimal_threshold(beta), rel=1e-9)


@pytest.mark.parametrize(("m", "n"), [(200, 200), (100, 400)])
def test_the_median_is_that_of_noise(m: int, n: int) -> None:
    noise = np.random.default_rng(0).standard_normal((m, n))
    values = np.linalg.svd(noise, compute_uv=False)
    assert marchenko_pastur_median(m / n) == pytest.approx(np.median(values**2 / n), rel=0.03)
    assert threshold(values, (n, m)) == pytest.approx(threshold(values, (m, n), 1.0), rel=0.03)
    assert values[0] < threshold(values, (m, n)) < 1.5 * values[0]
