"""Draws of sets of points that repel each other: projection determinantal point processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import qr

from eckart.arrays import Dense, Seed, dense, generator_of
from eckart.errors import Refused


def orthonormal(features: Any, name: str = "the features") -> Dense:
    """Q (N, m) with the same columns' span as features (N, m).

    Raises:
        Refused: the columns are dependent, or there are fewer points than features.
    """
    x = dense(features, name)
    n, m = x.shape
    if not 1 <= m <= n:
        raise Refused(f"{name} of shape {x.shape} have to be at least as many points as features, and one")
    largest = np.abs(x).max(axis=0)
    x = x / np.where(largest > 0, largest, 1)
    size = np.linalg.norm(x, axis=0)
    q, r, _ = qr(x / np.where(size > 0, size, 1), mode="economic", pivoting=True)
    least = float(np.abs(r.diagonal())[-1])
    if not least > n * np.finfo(float).eps:
        raise Refused(f"{name} of shape {x.shape} are linearly dependent: drop some of them")
    found: Dense = q
    return found


def projection_dpp(features: Any, generator: Seed = None) -> Dense:
    """m of N points with probability det(Q_S)^2, Q an orthonormal basis of the columns of features (N, m).

    The chain rule (Hough et al. 2006): a point in proportion to what is left of its row, then the rest of all rows is
    projected on the complement of that row, twice against rounding; norms are taken afresh, never subtracted down.
    O(N m^2). Point i is in it with probability |q_i|^2, its leverage score.

    Args:
        features: (N, m), of full column rank.
        generator: of the draws.

    Returns:
        (m,), distinct indices in the order in which they were drawn.
    """
    rest = orthonormal(features)
    rng = generator_of(generator)
    index = np.empty(rest.shape[1], np.int64)
    for k in range(len(index)):
        weight = np.square(rest).sum(1)
        weight[index[:k]] = 0
        index[k] = i = int(rng.choice(len(weight), p=weight / weight.sum()))
        direction = rest[i] / np.linalg.norm(rest[i])
        for _ in range(2):
            rest = rest - np.outer(rest @ direction, direction)
    return index
