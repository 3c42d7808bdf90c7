"""Which singular values of a matrix are more than noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import brentq

from eckart.arrays import Dense


def optimal_threshold(beta: float) -> float:
    """lambda(beta): singular values above lambda sqrt(n) s are worth keeping, of m x n under noise of deviation s.

    Gavish and Donoho 2014 (arXiv 1305.5870), equation 11, for beta = m / n at most 1. A value just there is a signal
    for which keeping its component, with singular vectors as noise turned them, and dropping it cost the same.
    """
    return math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))


def marchenko_pastur_median(beta: float) -> float:
    """The median of the eigenvalues of X X^T / n for noise X (m, n) of deviation 1, beta = m / n at most 1."""
    root = math.sqrt(beta)
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def below(angle: float) -> float:
        """The share of eigenvalues under `eigenvalue(angle)`, by Gauss's rule on the angle."""
        at = angle * (nodes + 1) / 2
        return float(weights @ (2 * np.square(np.sin(at)) / (np.pi * eigenvalue(at)))) * angle / 2

    def eigenvalue(angle: Any) -> Any:
        """1 + beta - 2 sqrt(beta) cos(angle), without cancellation near zero."""
        return (1 - root) ** 2 + 4 * root * np.square(np.sin(angle / 2))

    return float(eigenvalue(brentq(lambda angle: below(angle) - 0.5, 1e-6, math.pi)))


def threshold(values: Dense, shape: tuple[int, int], noise: float | None = None) -> float:
    """Below which singular values of a matrix are dropped: lambda sqrt(n) noise, or of a noise told by their median.

    Args:
        values: all min(m, n) singular values.
        shape: (m, n), either way round.
        noise: standard deviation of the entries; None where it is not known.
    """
    small, large = sorted(shape)
    beta = small / large
    if noise is None:
        return optimal_threshold(beta) / math.sqrt(marchenko_pastur_median(beta)) * float(np.median(values))
    return optimal_threshold(beta) * math.sqrt(large) * noise
