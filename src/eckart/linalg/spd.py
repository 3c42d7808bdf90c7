"""Symmetric positive definite matrices in the metric that no change of coordinates moves: means and tangents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eckart.arrays import Dense
from eckart.errors import Refused
from eckart.linalg.solution import Solution


def spd_function(a: Dense, f: Callable[[Dense], Dense]) -> Dense:
    """V f(values) V^T of symmetric A = V values V^T (..., p, p)."""
    values, vectors = np.linalg.eigh(a)
    found: Dense = (vectors * f(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return found


def _logarithms(a: Dense, mean: Dense) -> Dense:
    """log(M^-1/2 A M^-1/2); an eigenvalue that rounding took below its own size is put there."""
    inverse = spd_function(mean, lambda v: 1 / np.sqrt(v))
    seen = inverse @ a @ inverse
    eps = np.finfo(float).eps
    symmetric = (seen + np.swapaxes(seen, -1, -2)) / 2
    return spd_function(symmetric, lambda v: np.log(np.maximum(v, eps * v.max(axis=-1, keepdims=True))))


def checked_definite(a: Dense, name: str) -> Dense:
    """A (n, p, p) where every matrix is numerically positive definite.

    Raises:
        Refused: one is not, which is named with its rank.
    """
    values = np.linalg.eigvalsh(a)
    sound = values > a.shape[-1] * np.finfo(float).eps * np.abs(values).max(axis=-1, keepdims=True, initial=0)
    if not sound.all():
        worst = int(np.argmin(sound.sum(axis=-1)))
        raise Refused(
            f"{name} {worst} has rank {int(sound[worst].sum())} of {a.shape[-1]}: shrink the covariances, take fewer "
            "delays or channels, or longer trials"
        )
    return a


def affine_mean(a: Dense, *, tolerance: float = 1e-10, max_iter: int = 100) -> Solution[Dense]:
    """M of least sum of |log(M^-1/2 A_i M^-1/2)|^2, the mean that B M B^T follows when all A_i become B A_i B^T.

    M <- M^1/2 exp(s mean of log(M^-1/2 A_i M^-1/2)) M^1/2 (Moakher 2005), s halved where the mean of logarithms, which
    is to vanish, has grown.

    Args:
        a: (n, p, p), positive definite.
        tolerance: of the norm of the mean of logarithms.
        max_iter: steps at most.
    """
    mean, step, best = a.mean(axis=0), 1.0, np.inf
    found, history = mean, []
    for _ in range(max_iter):
        way = _logarithms(a, mean).mean(axis=0)
        history.append(float(np.linalg.norm(way)))
        if history[-1] < best:
            found, best = mean, history[-1]
        else:
            step /= 2
        if best <= tolerance or step < 1e-3:
            break
        root = spd_function(mean, np.sqrt)
        moved = root @ spd_function(step * way, np.exp) @ root
        mean = (moved + moved.T) / 2
    return Solution(found, best <= tolerance, len(history), tuple(history), f"the mean of logarithms is {best:.1e}")


def tangent_vectors(a: Dense, mean: Dense) -> Dense:
    """log(M^-1/2 A M^-1/2) of A (n, p, p) as vectors (n, p (p + 1) / 2) of the same norm, by rows of the upper half."""
    logs = _logarithms(a, mean)
    rows, columns = np.triu_indices(len(mean))
    found: Dense = logs[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2))
    return found


def from_tangent(vectors: Dense, mean: Dense) -> Dense:
    """The inverse of `tangent_vectors`: (n, p (p + 1) / 2) -> (n, p, p)."""
    p = len(mean)
    rows, columns = np.triu_indices(p)
    logs = np.zeros((len(vectors), p, p))
    logs[:, rows, columns] = logs[:, columns, rows] = vectors / np.where(rows == columns, 1.0, np.sqrt(2))
    root = spd_function(mean, np.sqrt)
    found: Dense = root @ spd_function(logs, np.exp) @ root
    return found
