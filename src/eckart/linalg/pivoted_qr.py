"""Orthogonal factorizations with columns in an order that shows the rank: by a sketch, and with a proven bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, qr, solve_triangular
from scipy.linalg.blas import dtrsm

from eckart.arrays import Dense, Seed, dense
from eckart.errors import Refused
from eckart.linalg.sketches import SparseSign

BLOCK = 1024
"""Rows at once, few enough to stay in the cache while they are turned."""
SQUEEZED = 10.0
"""Condition up to which one Cholesky factorisation makes columns orthonormal to rounding."""
UNITS = 1e-100, 1e100
"""Between these the squares of the largest entry are floating-point numbers, and nothing is divided by it."""


@dataclass(frozen=True)
class PivotedQR:
    """A[:, order] = Q R, up to what is beyond the rank.

    Attributes:
        q: Q (m, rank), orthonormal columns.
        r: R (rank, n), upper triangular or, for `strong_rrqr`, upper trapezoidal.
        order: (n,), the columns of A in their new order.
    """

    q: Dense
    r: Dense
    order: Dense

    @property
    def rank(self) -> int:
        """Columns of Q."""
        return int(self.q.shape[1])


def cqrrpt(a: Any, *, rows: int | None = None, tolerance: float | None = None, generator: Seed = None) -> PivotedQR:
    """QR with column pivoting of a tall matrix, by products of matrices alone but for a small one.

    Pivots and a preconditioner come from the pivoted QR of a sketch S A; Cholesky of the Gram matrix of A[:, J] R_s^-1,
    which is well conditioned then, corrects it (Melnichenko et al. 2023, arXiv 2311.08316). Where A is so badly
    conditioned that it is not, a second such step makes Q orthonormal to rounding.

    Args:
        a: A (m, n), m at least n.
        rows: of the sketch; by default 4 n, or 2 n where m is less than 8 n, and at most m.
        tolerance: of R's diagonal by its first entry where the rank ends; by default m eps.
        generator: of the sketch.
    """
    a = dense(a, "the matrix")
    m, n = a.shape
    if m < n or n < 1:
        raise Refused(f"cqrrpt is of tall matrices, got one of shape {a.shape}: take scipy.linalg.qr")
    d = min(m, max(4 * n if m >= 8 * n else 2 * n, n + 8)) if rows is None else rows
    if d < n:
        raise Refused(f"a sketch of rows={d} is too small for {n} columns")
    size = max(float(a.max()), -float(a.min()))
    size = 1.0 if UNITS[0] < size < UNITS[1] or not size else size
    scaled = a if size == 1 else a / size
    small = scaled if d >= m else SparseSign(d, m, generator).apply(scaled)
    r, order = qr(small, mode="r", pivoting=True)
    diagonal = np.abs(r.diagonal())
    least = (m * np.finfo(float).eps if tolerance is None else tolerance) * diagonal[0]
    k = int((diagonal > least).sum()) if diagonal[0] > 0 else 0
    r, q = r[:k], np.empty((m, k))
    if k:
        _over(r[:, :k], q, scaled, order[:k])
        c = cholesky(q.T @ q)
        if np.linalg.cond(c) > SQUEEZED:
            _over(c, q)
            r, c = c @ r, cholesky(q.T @ q)
        _over(c, q)
        r = c @ r
    # Columns beyond the rank are known to a sketch only: their coordinates are taken afresh.
    r = np.concatenate([r[:, :k], q.T @ scaled[:, order[k:]]], 1)
    return PivotedQR(q, r * size, order)


def _over(r: Dense, q: Dense, a: Dense | None = None, columns: Any = None) -> None:
    """Puts A[:, columns] R^-1 into Q, or Q R^-1 where there is no A."""
    for at in range(0, len(q), BLOCK):
        part = q[at : at + BLOCK]
        if a is not None:
            np.take(a[at : at + BLOCK], columns, axis=1, out=part, mode="clip")
        part[:] = dtrsm(1.0, r, part.T, trans_a=1, overwrite_b=1).T


def strong_rrqr(a: Any, rank: int, *, bound: float = 2.0) -> PivotedQR:
    """The first `rank` columns span A nearly as well as any: strong rank-revealing QR (Gu and Eisenstat 1996).

    With R = [R11 R12; 0 R22], every entry of R11^-1 R12 is at most `bound`, and singular values of R11 and R22 are
    those of A within sqrt(1 + bound^2 k (n - k)). Columns are swapped as long as that
    raises |det R11| by more than `bound`.

    Args:
        a: A (m, n).
        rank: k, 1 to min(m, n); columns beyond the rank of A cannot be told apart.
        bound: above 1.

    Returns:
        q (m, k) and r (k, n), which is [R11 R12]; what is left is R22.
    """
    a = dense(a, "the matrix")
    k = rank
    if not 1 <= k <= min(a.shape) or not bound > 1:
        raise Refused(f"rank={rank} and bound={bound} for a matrix of shape {a.shape}: rank in 1..min, bound above 1")
    _, r, order = qr(a, mode="economic", pivoting=True)
    if not abs(r[k - 1, k - 1]) > max(a.shape) * np.finfo(float).eps * abs(r[0, 0]):
        raise Refused(f"rank={k} is more than the numerical rank of the matrix: ask for less")
    for _ in range(10 * a.shape[1] * k):
        inner = solve_triangular(r[:k, :k], r[:k, k:])
        # |det R11| changes by sqrt(inner_ij^2 + |R22_j|^2 |R11^-1_i|^2) where i and k + j are swapped.
        left = np.linalg.norm(solve_triangular(r[:k, :k], np.eye(k)), axis=1)
        gain = np.square(inner) + np.square(np.outer(left, np.linalg.norm(r[k:, k:], axis=0)))
        if not gain.size or gain.max() <= bound**2:
            break
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        order[[i, k + j]] = order[[k + j, i]]
        r = np.linalg.qr(a[:, order], mode="r")
    q, r = np.linalg.qr(a[:, order])
    return PivotedQR(q[:, :k], r[:k], order)
