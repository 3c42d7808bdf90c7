"""The exact accounting of Gaussian noise against integrals and the classic bound."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from eckart.errors import Refused
from eckart.linalg.gaussian_mechanism import leakage, noise_ratio


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_leakage_is_the_integral_of_what_exceeds(epsilon: float) -> None:
    """delta = integral of max(p(t) - e^epsilon q(t), 0), p and q a sensitivity apart."""
    ratio = noise_ratio(epsilon, 1e-3)
    # p exceeds e^epsilon q where t > epsilon r^2 + 1/2 from q's mean.
    edge = epsilon * ratio**2 + 0.5
    density = lambda t: norm.pdf(t, 1, ratio) - np.exp(epsilon) * norm.pdf(t, 0, ratio)  # noqa: E731
    assert quad(density, edge, edge + 40 * ratio)[0] == pytest.approx(leakage(epsilon, ratio), rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-6, 0.1])
def test_noise_is_enough_and_hardly_more(epsilon: float, delta: float) -> None:
    ratio = noise_ratio(epsilon, delta)
    assert delta * (1 - 1e-5) <= leakage(epsilon, ratio) <= delta
    if epsilon <= 1:
        assert ratio < np.sqrt(2 * np.log(1.25 / delta)) / epsilon


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0.1), (-1, 0.1), (1, 0), (1, 1), (float("inf"), 0.1)])
def test_what_is_no_privacy_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(Refused, match=f"delta={delta}"):
        noise_ratio(epsilon, delta)
