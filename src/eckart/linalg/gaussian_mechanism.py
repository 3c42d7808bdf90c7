"""How much Gaussian noise makes what is told differentially private, and what it tells at most."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from eckart.errors import Refused


def leakage(epsilon: float, ratio: float) -> float:
    """The least delta for which noise of `ratio` times the sensitivity is (epsilon, delta)-private: exact.

    Balle and Wang 2018 (arXiv 1805.06530), theorem 8: Phi(1/(2 r) - epsilon r) - e^epsilon Phi(-1/(2 r) - epsilon r).
    """
    first = log_ndtr(0.5 / ratio - epsilon * ratio)
    second = epsilon + log_ndtr(-0.5 / ratio - epsilon * ratio)
    return float(np.exp(first) * -np.expm1(min(second - first, 0.0)))


def noise_ratio(epsilon: float, delta: float) -> float:
    """The standard deviation of Gaussian noise, by the Euclidean sensitivity, that is (epsilon, delta)-private.

    Raises:
        Refused: epsilon is not positive and finite, or delta not in (0, 1).
    """
    if not 0 < epsilon < np.inf or not 0 < delta < 1:
        raise Refused(f"epsilon={epsilon} and delta={delta}: epsilon is above 0, delta between 0 and 1")
    found = brentq(lambda log: np.log(max(leakage(epsilon, np.exp(log)), 1e-300)) - np.log(delta), -12, 25, xtol=1e-12)
    # Up by what the root may be off, never down.
    return float(np.exp(found) * (1 + 1e-10))
