"""ln of sums of Gaussian kernels over many points, by blocks of rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eckart.arrays import Dense
from eckart.linalg.distances import squared_distances

BLOCK = 2**17
"""Distances at once, few enough to stay in the cache while all widths go over them."""


def log_sums(x: Dense, z: Dense, width: float) -> Dense:
    """ln sum_j exp(-|x_i - z_j|^2 / 2 h^2), (n,), of x (n, d) and z (m, d); nothing overflows or vanishes."""
    first, second = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(z))
    step = max(1, BLOCK // max(len(z), 1))
    found = torch.empty(len(first), dtype=torch.float64)
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        found[rows] = torch.logsumexp(squared_distances(first[rows], second) / (-2 * width**2), 1)
    return found.numpy()


def leave_one_out(z: Dense, widest: float, octaves: int, steps: int, every: int = 1) -> tuple[Dense, Dense]:
    """ln sum over others of exp(-|z_i - z_j|^2 / 2 h^2) for many widths h, from one pass over all distances.

    From h to h / sqrt(2) each term is squared, so that exponentials are taken `steps` / 2 times a pair, and the other
    widths cost a product each. Points that coincide with the i-th are left out with it, and so is the i-th's share in
    1 / (n - 1).

    Args:
        z: (n, d).
        widest: the largest h.
        octaves: by how many times two they fall.
        steps: widths an octave, even.
        every: one of how many points the sums are of; they are over all.

    Returns:
        Widths (k,), falling, and (m, k), of m points, the logarithm of the mean over others; -Inf where all others
        coincide with a point.
    """
    points = torch.from_numpy(np.ascontiguousarray(z))
    chosen, half, n = points[::every], steps // 2, len(points)
    widths = widest * 2.0 ** (-np.arange(octaves * steps + 1) / steps)
    found = torch.empty(len(chosen), len(widths), dtype=torch.float64)
    for start in range(0, len(chosen), max(1, BLOCK // n)):
        rows = chosen[start : start + max(1, BLOCK // n)]
        found[start : start + len(rows)] = _of_rows(squared_distances(rows, points), widths, half)
    return widths, (found - np.log(max(n - 1, 1))).numpy()


def _of_rows(distance: Tensor, widths: Dense, half: int) -> Tensor:
    distance = torch.where(distance > 0, distance, torch.inf)
    nearest = distance.amin(1, keepdim=True)
    alone = torch.isinf(nearest)
    over = distance - torch.where(alone, 0.0, nearest)
    found = torch.empty(len(distance), len(widths), dtype=torch.float64)
    for first in range(half):
        terms = (over / (-2 * widths[first] ** 2)).exp()
        for at in range(first, len(widths), half):
            found[:, at] = terms.sum(1).log()
            terms.square_()
    return found - torch.where(alone, 0.0, nearest) / torch.from_numpy(2 * widths**2)
