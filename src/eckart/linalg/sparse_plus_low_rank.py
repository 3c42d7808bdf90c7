"""A sparse matrix plus one of low rank, by its products; and single entries of the latter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eckart.arrays import Dense

AT_ONCE = 2**21
"""Numbers of a factor that are gathered together."""


@dataclass(frozen=True)
class SparsePlusLowRank:
    """S + A B^T.

    Attributes:
        sparse: S (m, n), of SciPy.
        left: A (m, k).
        right: B (n, k).
    """

    sparse: Any
    left: Dense
    right: Dense

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return len(self.left), len(self.right)

    @property
    def T(self) -> SparsePlusLowRank:
        """S^T + B A^T."""
        return SparsePlusLowRank(self.sparse.T, self.right, self.left)

    def __matmul__(self, x: Dense) -> Dense:
        """(n, j) -> (m, j)."""
        found: Dense = self.sparse @ x + self.left @ (self.right.T @ x)
        return found


def entries_of(left: Dense, right: Dense, row: Dense, column: Dense) -> Dense:
    """The entries (A B^T)[row, column] of A (m, k) and B (n, k), one for each pair of indices."""
    found = np.empty(len(row))
    step = max(1, AT_ONCE // max(1, left.shape[1]))
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        np.einsum("ik,ik->i", left[row[part]], right[column[part]], out=found[part])
    return found
