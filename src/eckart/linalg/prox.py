"""Proximal maps: argmin over z of 1/2 |z - x|^2 + t f(z), in closed form."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense


def soft(x: Dense, t: float | Dense) -> Dense:
    """Of f = |z|_1: sign(x) max(|x| - t, 0), entry by entry."""
    clipped: Dense = np.clip(x, -t, t)
    return x - clipped
