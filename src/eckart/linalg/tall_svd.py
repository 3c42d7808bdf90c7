"""The exact SVD of a tall matrix from products of its columns: as accurate as Householder's, and faster."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg.blas import dsyrk

from eckart.arrays import Dense, back, dense, whole
from eckart.errors import Refused
from eckart.linalg.thresholded_svd import ThinSVD

ENOUGH = 1e-11
"""Relative error of the singular values wanted, up to which those of one product are not made better."""
TOO_FLAT = 1e-13
"""Of an eigenvalue of the product, by the largest: below it a second product does not help, and QR is taken."""
BLOCK = 8192
"""Rows of an array at once."""
CACHED = 2**16
"""Numbers that are read twice while they are near."""
FAR, FAR_SQUARED = 2.0**-900, 2.0**-200
"""Units from here to one over it are taken out of what is small, and of its squares; beyond, X is divided."""


def tall_svd(x: Any, rank: int | None = None) -> ThinSVD:
    """X = U diag(s) V^T of a matrix with many more rows than columns, in two passes over it or three.

    X^T X = V diag(l) V^T loses what lies below sqrt(eps) s_1. Where that matters, Q = X V diag(l)^-1/2 is orthonormal
    but for rounding, its own product Q^T Q = R^T R mends it, and the SVD of R diag(l)^1/2 V^T (p, p) is that of X: what
    CholeskyQR does twice (Yamamoto et al. 2015). Beyond a condition of some 3e6 the factor R comes from a QR of X.

    Args:
        x: (n, p), n at least p: an array or tensor; or an array of Dask with all columns in one chunk, whose parts are
            multiplied where they lie, so that it may be larger than memory.
        rank: triplets, the largest first; all p where it is None.

    Returns:
        U (n, rank), of the kind of x (of Dask: not computed yet), s (rank,) and V (p, rank), in float64. Columns of U
        of a singular value of zero are zero.

    Raises:
        Refused: fewer rows than columns, a bad rank, no real numbers, NaN or Inf.
    """
    of_dask = type(x).__module__.partition(".")[0] == "dask"
    if of_dask and (not hasattr(type(x), "rechunk") or x.dtype.kind not in "biuf"):
        raise Refused(f"x is {type(x).__name__} of Dask of {getattr(x, 'dtype', 'no dtype')}: an array of real numbers")
    table: Any = x if of_dask else dense(x, "x")
    if table.ndim != 2 or table.shape[0] < table.shape[1] or not table.shape[1]:
        raise Refused(f"x is of shape {table.shape}; more rows than columns are needed: hand in its transpose")
    p = table.shape[1]
    rank = p if rank is None else rank
    if not whole(rank) or not 1 <= rank <= p:
        raise Refused(f"rank={rank!r:.40} is no whole number in 1..{p}")
    if of_dask:
        table = table.rechunk({1: -1}).astype(np.float64)
    unit = _largest(table)
    if not unit < np.inf:
        raise Refused("x has NaN or Inf entries")
    if unit == 0:
        return ThinSVD(_as_came(table @ np.zeros((p, rank)), x), np.zeros(rank), np.eye(p)[:, :rank])
    unit = float(np.ldexp(1.0, int(np.frexp(unit)[1]) - 1))
    values, vectors = _descending(_gram(table, unit))
    eps = float(np.finfo(float).eps)
    if eps * values[0] > ENOUGH * values[rank - 1]:
        small = _triangle(table, unit) if values[-1] < TOO_FLAT * values[0] else _twice(table, unit, values, vectors)
        s, vectors = np.linalg.svd(small, full_matrices=False)[1:]
        vectors = vectors.T
    else:
        s = np.sqrt(values)
    s, v = s[:rank], vectors[:, :rank]
    kept = s > p * eps * s[0]
    s = np.where(kept, s, 0.0)
    # X is divided by its unit: the inverse of that is beyond floating point where the numbers are subnormal.
    onto = v * np.where(kept, 1 / np.where(kept, s, 1.0), 0.0)
    left = _times(table, unit, onto)
    return ThinSVD(_as_came(left, x), s * unit, v)


def _times(table: Any, unit: float, right: Dense) -> Any:
    """X / unit B."""
    if FAR < unit < 1 / FAR:
        return table @ (right / unit)
    if not isinstance(table, np.ndarray):
        return (table / unit) @ right
    found: Dense = np.empty((len(table), right.shape[1]))
    for at in range(0, len(table), BLOCK):
        np.matmul(table[at : at + BLOCK] / unit, right, out=found[at : at + BLOCK])
    return found


def _twice(table: Any, unit: float, values: Dense, vectors: Dense) -> Dense:
    """R diag(l)^1/2 V^T, whose singular values are those of X / unit."""
    roots = np.sqrt(values)
    lower = np.linalg.cholesky(_gram(table, unit, vectors / roots))
    found: Dense = lower.T @ (roots[:, None] * vectors.T)
    return found


def _triangle(table: Any, unit: float) -> Dense:
    """R of a QR of X / unit."""
    if isinstance(table, np.ndarray):
        r: Dense = np.zeros((0, table.shape[1]))
        for at in range(0, len(table), BLOCK):
            r = np.asarray(np.linalg.qr(np.vstack([r, table[at : at + BLOCK] / unit]), mode="r"))
        return r
    from dask.array import linalg

    tsqr: Any = linalg.tsqr
    return np.asarray(tsqr(table / unit)[1].compute())


def _gram(table: Any, unit: float, right: Dense | None = None) -> Dense:
    """(X B / unit)^T X B / unit; B is the identity where it is None."""
    near = FAR_SQUARED < unit < 1 / FAR_SQUARED
    if right is not None and near:
        right = right / unit
    if not isinstance(table, np.ndarray):
        q = table if near else table / unit
        q = q if right is None else q @ right
        found: Dense = np.asarray((q.T @ q).compute())
        return found / unit**2 if near and right is None else found
    upper = np.zeros((table.shape[1],) * 2, order="F")
    for at in range(0, len(table), BLOCK):
        q = table[at : at + BLOCK] if near else table[at : at + BLOCK] / unit
        q = q if right is None else q @ right
        upper = dsyrk(1.0, q.T, beta=1.0, c=upper, overwrite_c=True)
    found = np.triu(upper) + np.triu(upper, 1).T
    return found / unit**2 if near and right is None else found


def _descending(gram: Dense) -> tuple[Dense, Dense]:
    values, vectors = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _largest(table: Any) -> float:
    if not isinstance(table, np.ndarray):
        return float(abs(table).max().compute())
    step = max(1, CACHED // table.shape[1])
    parts = (table[at : at + step] for at in range(0, len(table), step))
    return float(np.max([(part.max(), -part.min()) for part in parts]))


def _as_came(left: Any, x: Any) -> Any:
    return back(left, x) if isinstance(left, np.ndarray) else left
