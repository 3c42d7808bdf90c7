"""Symmetric positive definite matrices in the metric that no change of coordinates moves: means and tangents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eckart.arrays import Dense, number
from eckart.errors import Refused
from eckart.linalg.solution import Solution

PATIENCE = 10
"""Steps without a smaller norm after which rounding is what is left."""


def spd_function(a: Dense, f: Callable[[Dense], Dense]) -> Dense:
    """V f(values) V^T of symmetric A = V values V^T (..., p, p)."""
    values, vectors = np.linalg.eigh(a)
    found: Dense = (vectors * f(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return found


def _whitened(a: Dense, mean: Dense) -> tuple[Dense, Dense]:
    """Eigenvalues (n, p) of log(M^-1/2 A M^-1/2), and vectors (n, p, p).

    An eigenvalue of what is under the logarithm that rounding took below its own size is put there.
    """
    inverse = spd_function(mean, lambda v: 1 / np.sqrt(v))
    seen = inverse @ a @ inverse
    values, vectors = np.linalg.eigh((seen + np.swapaxes(seen, -1, -2)) / 2)
    return np.log(np.maximum(values, np.finfo(float).eps * values.max(axis=-1, keepdims=True))), vectors


def _logarithms(a: Dense, mean: Dense) -> Dense:
    """log(M^-1/2 A M^-1/2) of A (n, p, p)."""
    values, vectors = _whitened(a, mean)
    found: Dense = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return found


def _curvature(values: Dense) -> float:
    """A bound of the curvature of half the mean squared distance, from eigenvalues (n, p) of logarithms; at least 1.

    The mean of r coth(r), r half of the spread of a matrix's eigenvalues (Bini and Iannazzo 2013, section 3).
    """
    r = np.maximum((values[:, -1] - values[:, 0]) / 2, 1e-8)
    return float((r / np.tanh(r)).mean())


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

    M <- M^1/2 exp(s W) M^1/2 with W the mean of log(M^-1/2 A_i M^-1/2), which is to vanish (Moakher 2005). s is one by
    the curvature that the last step saw (Barzilai and Borwein's two in turns), between the bounds of curvatures, 1 and
    `_curvature`; and one by the latter where |W| has grown. That takes tens of steps where s = 1 takes hundreds.

    Args:
        a: (n, p, p), positive definite.
        tolerance: of the norm of the mean of logarithms.
        max_iter: steps at most; and no more than ten without a smaller norm.
    """
    mean, best, last = a.mean(axis=0), np.inf, 0
    found, history = mean, list[float]()
    before, step = np.zeros_like(mean), 0.0
    while len(history) < max_iter and len(history) - last <= PATIENCE:
        values, vectors = _whitened(a, mean)
        way = ((vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)).mean(axis=0)
        history.append(float(np.linalg.norm(way)))
        less = history[-1] < best
        if less:
            found, best, last = mean, history[-1], len(history)
        if best <= tolerance:
            break
        fell, largest = before - way, _curvature(values)
        steep = float((before * fell).sum())
        if not less or not steep > 0:
            step = 1 / largest
        else:
            square = float((fell * fell).sum() if len(history) % 2 else (before * before).sum())
            c = square / steep if len(history) % 2 else steep / square
            step = float(np.clip(step / c, 1 / largest, 1.0))
        root = spd_function(mean, np.sqrt)
        moved = root @ spd_function(step * way, np.exp) @ root
        mean, before = (moved + moved.T) / 2, way
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


def _turned_roots(a: Dense, mean: Dense) -> tuple[Dense, Dense, Dense]:
    """Eigenvalues and vectors Q of M, and Q^T (M^1/2 A M^1/2)^1/2 Q of A (n, p, p)."""
    values, vectors = np.linalg.eigh(mean)
    # B = A^1/2 M^1/2 Q by a root of A on the scales of its own diagonal: (B^T B)^1/2 is V s V^T of its singular values,
    # and nothing is squared.
    scale = np.sqrt(np.maximum(np.diagonal(a, axis1=-2, axis2=-1), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    sizes, ways = np.linalg.eigh(a / (scale[..., :, None] * scale[..., None, :]))
    half = scale[..., :, None] * ways * np.sqrt(np.maximum(sizes, 0.0))[..., None, :]
    _, s, vt = np.linalg.svd(np.swapaxes(half, -1, -2) @ (vectors * np.sqrt(np.maximum(values, 0.0))))
    return values, vectors, (np.swapaxes(vt, -1, -2) * s[..., None, :]) @ vt


def bures_distance(a: Dense, b: Dense) -> Dense:
    """sqrt(tr A + tr B - 2 tr (B^1/2 A B^1/2)^1/2) of A (n, p, p) and B (p, p), positive semi-definite: (n,)."""
    shared = np.trace(_turned_roots(a, b)[2], axis1=-2, axis2=-1)
    square = np.trace(a, axis1=-2, axis2=-1) + np.trace(b) - 2 * shared
    found: Dense = np.sqrt(np.maximum(square, 0.0))
    return found


def bures_mean(a: Dense, *, tolerance: float = 1e-10, max_iter: int = 100) -> Solution[Dense]:
    """M of least sum of squared `bures_distance` to A_i: M <- M^-1/2 (mean of (M^1/2 A_i M^1/2)^1/2)^2 M^-1/2.

    From the Euclidean mean; the sum falls in every step (Alvarez-Esteban et al. 2016).

    Args:
        a: (n, p, p), positive semi-definite, of a definite mean.
        tolerance: of the norm of the mean tangent, by that of M^1/2.
        max_iter: steps at most.

    Raises:
        Refused: a tolerance that is none, or the mean degenerates: that of matrices of rank one, and of some others of
            low rank, is singular, however many they are.
    """
    if not 0 <= number(tolerance) < np.inf:
        raise Refused(f"tolerance={tolerance!r:.40} is negative, or no number")
    mean, history = a.mean(axis=0), list[float]()
    for step in range(max_iter):
        values, vectors, inner = _turned_roots(a, mean)
        sound = values > len(values) * np.finfo(float).eps * values[-1]
        if not sound.all():
            raise Refused(
                f"the Bures-Wasserstein mean has rank {int(sound.sum())} of {len(values)} after {step} steps: matrices "
                "of so low a rank have no definite one; add a little of the identity to each"
            )
        middle = inner.mean(axis=0)
        history.append(float(np.linalg.norm(_tangents(middle, values)) / np.sqrt(values.sum())))
        if history[-1] <= tolerance:
            break
        half = vectors @ (middle / np.sqrt(values)).T
        mean = half @ half.T
    done = history[-1] <= tolerance
    return Solution(mean, done, len(history), tuple(history), f"the mean tangent is {history[-1]:.1e} of M^1/2")


def _tangents(inner: Dense, values: Dense) -> Dense:
    sums, products = values[:, None] + values, values[:, None] * values
    found: Dense = inner * np.sqrt(sums / (2 * products)) - np.diag(np.sqrt(values))
    return found


def bures_tangents(a: Dense, mean: Dense) -> Dense:
    """Symmetric U (n, p, p) of norm `bures_distance`: A seen from M, carried along to the identity.

    With M = Q diag(v) Q^T and S = Q^T (M^1/2 A M^1/2)^1/2 Q, Log_M A = (M A)^1/2 + (A M)^1/2 - 2 M is
    S_ij (v_i + v_j) / sqrt(v_i v_j) - 2 v_i d_ij in the basis Q; parallel transport from M to I, which commutes with
    it, multiplies by sqrt(2 / (v_i + v_j)) (Thanwerdas and Pennec 2023), and the metric there is |V|^2 / 4.
    """
    values, vectors, inner = _turned_roots(a, mean)
    found: Dense = vectors @ _tangents(inner, values) @ vectors.T
    return found


def from_bures_tangents(tangents: Dense, mean: Dense) -> Dense:
    """The inverse of `bures_tangents`: (I + L) M (I + L), L M + M L the tangent at M.

    Raises:
        Refused: I + L is not positive semi-definite: the geodesic left the cone, and comes back as another matrix.
    """
    values, vectors = np.linalg.eigh(mean)
    moves = vectors.T @ tangents @ vectors * np.sqrt(2 / (values[:, None] + values)) + np.eye(len(mean))
    least = np.linalg.eigvalsh(moves)[..., 0]
    if (least < -1e-9).any():
        at = int(np.argmin(least))
        raise Refused(
            f"tangent {at} leads out of the positive definite matrices (least eigenvalue of I + L {least[at]:.2g}): "
            "scale it down"
        )
    half = vectors @ (moves * np.sqrt(values))
    found: Dense = half @ np.swapaxes(half, -1, -2)
    return found
