"""A matrix from some of its own columns and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import qr

from eckart.arrays import Dense, Seed, dense, rows
from eckart.errors import Refused
from eckart.linalg.sketches import SparseSign


@dataclass(frozen=True)
class CUR:
    """A ~ C U R.

    Attributes:
        columns: indices of the columns C.
        rows: indices of the rows R.
        core: U (columns, rows).
    """

    columns: Dense
    rows: Dense
    core: Dense

    def of(self, a: Any) -> Dense:
        """C U R, written out, with the columns and rows of a matrix."""
        c, r = a[:, self.columns], a[self.rows]
        found: Dense = np.asarray(c @ (self.core @ r))
        return found


def cur_core(crossing: Any, *, rcond: float | None = None, ridge: float | None = None) -> Dense:
    """U = W^+, W = A[I, J] where chosen rows and columns cross, without the noise that small singular values carry.

    Args:
        crossing: W (rows, columns).
        rcond: singular values below this share of the first are dropped; by default that of rounding.
        ridge: or each s becomes s / (s^2 + ridge^2 s_1^2) instead of 1 / s.

    Returns:
        (columns, rows).
    """
    w = dense(crossing, "the crossing")
    if rcond is not None and ridge is not None:
        raise Refused("rcond and ridge are two ways of doing the same: give one")
    u, s, vh = np.linalg.svd(w, full_matrices=False)
    first = s[0] if s.size else 0.0
    if first == 0:
        return np.zeros(w.shape[::-1])
    if ridge is not None:
        inverse = s / (np.square(s) + (ridge * first) ** 2 + np.finfo(float).tiny)
    else:
        cut = max(w.shape) * np.finfo(float).eps if rcond is None else rcond
        inverse = np.where(s > cut * first, 1 / np.where(s > 0, s, 1), 0)
    found: Dense = (vh.T * inverse) @ u.T
    return found


def cur(a: Any, rank: int, *, generator: Seed = None) -> CUR:
    """Columns and rows by pivoted QR of sketches, and the best core between them, U = C^+ A R^+.

    Columns are the pivots of S A, rows those of (A[:, columns])^T, S a sparse sign matrix of 2 rank + 8 rows. Read from
    A are products with S and R^+ and the columns and rows themselves.

    Args:
        a: A (m, n), dense or sparse.
        rank: columns, and rows; 1 to min(m, n).
        generator: of the sketch.
    """
    a = rows(a, "the matrix")
    m, n = a.shape
    if not 1 <= rank <= min(m, n):
        raise Refused(f"rank={rank} is not in 1..{min(m, n)}")
    height = 2 * rank + 8
    small = SparseSign(height, m, generator).apply(a) if height < m else np.asarray(_dense(a))
    columns = qr(small, mode="r", pivoting=True)[1][:rank]
    c = np.asarray(_dense(a[:, columns]))
    chosen = qr(c.T, mode="r", pivoting=True)[1][:rank]
    r = np.asarray(_dense(a[chosen]))
    core = np.linalg.pinv(c, rcond=_cut(c)) @ np.asarray(a @ np.linalg.pinv(r, rcond=_cut(r)))
    return CUR(columns, chosen, core)


def _cut(x: Dense) -> float:
    return float(max(x.shape) * np.finfo(float).eps)


def _dense(x: Any) -> Any:
    return x.toarray() if sparse.issparse(x) else x
