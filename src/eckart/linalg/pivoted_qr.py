"""Orthogonal factorizations with columns in an order that shows the rank: by a sketch, and with a proven bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, qr, solve_triangular

from eckart.arrays import Dense, Seed, dense
from eckart.errors import Refused
from eckart.linalg.sketches import SparseSign


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
    which is well conditioned then, corrects it (Melnichenko et al. 2023, arXiv 2311.08316). A second such step makes Q
    orthonormal to rounding, whatever the condition of A.

    Args:
        a: A (m, n), m at least n.
        rows: of the sketch; by default the lesser of 4 n and m.
        tolerance: of R's diagonal by its first entry where the rank ends; by default m eps.
        generator: of the sketch.
    """
    a = dense(a, "the matrix")
    m, n = a.shape
    if m < n or n < 1:
        raise Refused(f"cqrrpt is of tall matrices, got one of shape {a.shape}: take scipy.linalg.qr")
    d = min(m, max(4 * n, n + 8)) if rows is None else rows
    if d < n:
        raise Refused(f"a sketch of rows={d} is too small for {n} columns")
    size = float(np.abs(a).max())
    scaled = a / size if size > 0 else a
    small = scaled if d >= m else SparseSign(d, m, generator).apply(scaled)
    r, order = qr(small, mode="r", pivoting=True)
    diagonal = np.abs(r.diagonal())
    least = (m * np.finfo(float).eps if tolerance is None else tolerance) * diagonal[0]
    k = int((diagonal > least).sum()) if diagonal[0] > 0 else 0
    r = r[:k]
    q = solve_triangular(r[:, :k], scaled[:, order[:k]].T, trans="T").T if k else np.empty((m, 0))
    for _ in range(2 if k else 0):
        c = cholesky(q.T @ q)
        q, r = solve_triangular(c, q.T, trans="T").T, c @ r
    # Columns beyond the rank are known to a sketch only: their coordinates are taken afresh.
    r = np.concatenate([r[:, :k], q.T @ scaled[:, order[k:]]], 1)
    return PivotedQR(q, r * size, order)


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
