"""An image without its noise: least total variation, and means of places that look alike."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from eckart.arrays import Dense


def gradient(z: Dense) -> Dense:
    """Forward differences (2, h, w) of an image (h, w), 0 at the far edges."""
    found = np.zeros((2, *z.shape))
    found[0, :-1] = z[1:] - z[:-1]
    found[1, :, :-1] = z[:, 1:] - z[:, :-1]
    return found


def divergence(p: Dense) -> Dense:
    """Minus the adjoint of `gradient`: (2, h, w) -> (h, w)."""
    down, right = p[0, :-1], p[1, :, :-1]
    found = np.zeros(p.shape[1:])
    found[:-1] += down
    found[1:] -= down
    found[:, :-1] += right
    found[:, 1:] -= right
    return found


def total_variation(y: Dense, weight: float, *, tolerance: float = 1e-3, max_iter: int = 300) -> Dense:
    """argmin over z of |z - y|^2 / 2 + weight sum of |gradient z|_2: accelerated gradients on the dual.

    Beck and Teboulle 2009: z = y + weight div p, p in unit balls.

    Args:
        y: (h, w).
        weight: at least 0.
        tolerance: of the duality gap by the objective.
        max_iter: steps at most.
    """
    if weight <= 0 or not np.ptp(y):
        return y
    p = ahead = np.zeros((2, *y.shape))
    momentum = 1.0
    for step in range(max_iter):
        moved = ahead + gradient(y + weight * divergence(ahead)) / (8 * weight)
        moved = moved / np.maximum(1.0, np.sqrt(np.square(moved).sum(axis=0)))
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead, p, momentum = moved + (momentum - 1) / after * (moved - p), moved, after
        if step % 10 == 9:
            z = y + weight * divergence(p)
            slope = gradient(z)
            spread = float(np.sqrt(np.square(slope).sum(axis=0)).sum())
            gap = weight * (spread - float((slope * p).sum()))
            if gap <= tolerance * (np.square(z - y).sum() / 2 + weight * spread):
                break
    found: Dense = y + weight * divergence(p)
    return found


def non_local_means(y: Dense, noise: float, *, side: int = 5, reach: int = 7, strength: float = 0.8) -> Dense:
    """Each pixel as a mean of those near it, by how alike the patches around them are (Buades, Coll and Morel 2005).

    The weight of two pixels is exp(-max(d - 2 noise^2, 0) / (strength noise)^2), d the mean squared difference of their
    patches; edges are mirrored.

    Args:
        y: (h, w).
        noise: standard deviation.
        side: of a patch.
        reach: how far in each direction pixels are looked at.
        strength: of the averaging.
    """
    if noise <= 0:
        return y
    padded = np.pad(y, reach, mode="symmetric")
    total, mass = np.zeros_like(y), np.zeros_like(y)
    h, w = y.shape
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            other = padded[down : down + h, right : right + w]
            apart = uniform_filter(np.square(y - other), side, mode="reflect")
            weight = np.exp(-np.maximum(apart - 2 * noise**2, 0) / (strength * noise) ** 2)
            total += weight * other
            mass += weight
    return total / mass
