"""How many singular values of a noisy matrix are worth keeping."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq

from eckart.arrays import Dense
from eckart.errors import Refused


def gavish_donoho(aspect: float) -> float:
    """lambda(b): singular values below lambda(b) sigma sqrt(n) of an (m, n) matrix, b = m/n <= 1, are best dropped.

    Gavish and Donoho 2014 (arXiv 1305.5870), equation 11; the noise is white. 4/sqrt(3) at b = 1.
    """
    if not 0 < aspect <= 1:
        raise Refused(f"an aspect of {aspect}: it is the shorter side by the longer one, in (0, 1]")
    return float(np.sqrt(2 * (aspect + 1) + 8 * aspect / (aspect + 1 + np.sqrt(aspect**2 + 14 * aspect + 1))))


@lru_cache(maxsize=64)
def marchenko_pastur_median(aspect: float) -> float:
    """The median of the eigenvalues of N N^T / n, N (m, n) of white noise of variance 1, b = m/n <= 1."""
    low, high = (1 - np.sqrt(aspect)) ** 2, (1 + np.sqrt(aspect)) ** 2

    def above(x: float) -> float:
        # x = middle - radius cos(angle) takes the roots out of the density.
        middle, radius = (high + low) / 2, (high - low) / 2
        start = np.arccos(np.clip((middle - x) / radius, -1, 1))
        area = quad(lambda a: np.sin(a) ** 2 / (middle - radius * np.cos(a)), start, np.pi)[0]
        return float(radius**2 * area / (2 * np.pi * aspect) - 0.5)

    return float(brentq(above, low, high))


def noise_level(values: Dense, shape: tuple[int, int]) -> float:
    """The standard deviation of white noise by the median of all min(m, n) singular values, where most are noise."""
    short, long = sorted(shape)
    return float(np.median(values) / np.sqrt(long * marchenko_pastur_median(short / long)))


def optimal_rank(values: Dense, shape: tuple[int, int], noise: float | None = None) -> int:
    """How many singular values are above `gavish_donoho`'s threshold.

    Args:
        values: all singular values, min(m, n) of them.
        shape: (m, n).
        noise: standard deviation of an entry; None for `noise_level`, which is the threshold omega(b) median(values).
    """
    short, long = sorted(shape)
    noise = noise_level(values, shape) if noise is None else noise
    return int((values > gavish_donoho(short / long) * np.sqrt(long) * noise).sum())
