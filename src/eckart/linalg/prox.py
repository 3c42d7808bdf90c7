"""Proximal maps: argmin over z of 1/2 |z - x|^2 + t f(z), in closed form."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense


def soft(x: Dense, t: float | Dense) -> Dense:
    """Of f = |z|_1: sign(x) max(|x| - t, 0), entry by entry."""
    clipped: Dense = np.clip(x, -t, t)
    return x - clipped


def hard(x: Dense, t: float | Dense) -> Dense:
    """Of f = the number of entries that are not 0: x where |x| > sqrt(2 t)."""
    return np.where(np.abs(x) > np.sqrt(2 * t), x, 0.0)


def half(x: Dense, t: float | Dense) -> Dense:
    """Of f = the sum of |z|^(1/2): 0 up to |x| = 3/2 t^(2/3), else 2/3 x (1 + cos(2/3 arccos(-t/4 (|x|/3)^(-3/2)))).

    Xu, Chang, Xu and Zhang 2012: the largest root of z^(3/2) - |x| z^(1/2) + t/2 = 0, a cubic in z^(1/2).
    """
    size = np.abs(x)
    large = size > 1.5 * np.power(t, 2 / 3)
    cosine = -0.25 * t * np.power(np.where(large, size, np.inf) / 3, -1.5)
    return np.where(large, 2 / 3 * x * (1 + np.cos(2 / 3 * np.arccos(cosine))), 0.0)


def mcp(x: Dense, t: float | Dense, width: float | Dense) -> Dense:
    """Of f = sum of |z| - z^2 / (2 width) up to |z| = width and width / 2 beyond: the minimax concave penalty.

    Zhang 2010. For t < width 0 up to |x| = t, x from |x| = width on, and a line between them; else `hard`.
    """
    size = np.abs(x)
    slope = np.where(t < width, 1 - t / width, 1.0)
    line = np.sign(x) * np.clip(size - t, 0.0, None) / slope
    firm = np.where(size <= width, line, x)
    return np.where(t < width, firm, hard(x, t * width / 2))


def cel0(x: Dense, t: float | Dense, penalty: float | Dense, norm: float | Dense = 1.0) -> Dense:
    """Of f = sum of penalty - norm^2/2 (|z| - sqrt(2 penalty)/norm)^2 up to |z| = sqrt(2 penalty)/norm, penalty beyond.

    Soubies, Blanc-Féraud and Aubert 2015: what makes |y - D z|^2 / 2 + penalty |z|_0 continuous, columns of D of that
    norm, and moves none of its minima. It is `mcp` of width sqrt(2 penalty)/norm.
    """
    edge = np.sqrt(2 * penalty)
    return mcp(x, t * norm * edge, edge / norm)
