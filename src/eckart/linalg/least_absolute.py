"""Least absolute deviations from a subspace, for many rows at once."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense
from eckart.linalg.prox import soft


def least_absolute_scores(
    x: Dense, seen: Dense, basis: Dense, *, tolerance: float = 1e-7, max_iter: int = 300
) -> Dense:
    """Scores (samples, k) of rows x on an orthonormal basis (features, k): argmin over a of |x - a basis^T|_1.

    By an inexact augmented Lagrangian: with S the rest and Y its multiplier, scores project x - S + Y/mu on the basis,
    soft thresholds the rest, and mu grows. Entries that were not `seen` count nothing.
    """
    scale = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(scale == 0, 1.0, scale)
    scores = np.zeros((len(x), basis.shape[1]))
    multiplier, sparse, mu = np.zeros_like(x), np.zeros_like(x), 1.0
    going = np.arange(len(x))
    for _ in range(max_iter):
        scores[going] = (x[going] - sparse[going] + multiplier[going] / mu) @ basis
        rest = x[going] - scores[going] @ basis.T
        sparse[going] = np.where(seen[going], soft(rest + multiplier[going] / mu, 1 / mu), rest)
        gap = rest - sparse[going]
        multiplier[going] += mu * gap
        mu = min(1.2 * mu, 1e7)
        going = going[np.linalg.norm(gap, axis=1) > tolerance * np.linalg.norm(x[going], axis=1)]
        if not len(going):
            break
    scores *= scale
    return scores
