"""Summaries of rows that come one after the other and are not kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from eckart.arrays import Dense, dense
from eckart.errors import Refused


class FrequentDirections:
    """B of few rows with 0 <= A^T A - B^T B <= error I for all rows of A that were seen (Liberty 2013).

    Two times `rows` are held; when they are full, the squares of the singular values are lowered by that of number
    `rows`, so that at least half become zero. The sum of what was taken off is `error`, and at most
    |A - A_k|_F^2 / (rows - k) for every k < rows (Ghashami et al. 2016).

    Args:
        rows: l, of B.
        columns: d.

    Attributes:
        error: what A^T A has more than B^T B, at most, in any direction.
        seen: rows so far.
    """

    def __init__(self, rows: int, columns: int) -> None:
        if rows < 1 or columns < 1:
            raise Refused(f"a summary of {rows} rows of {columns} numbers is none")
        self._held = np.zeros((2 * rows, columns))
        self._rows, self._filled = rows, 0
        self.error, self.seen = 0.0, 0

    def update(self, a: Any) -> FrequentDirections:
        """Takes in rows (n, d), or one (d,); itself again."""
        new = dense(np.atleast_2d(a) if np.ndim(a) == 1 else a, "the rows")
        if new.shape[1] != self._held.shape[1]:
            raise Refused(f"rows of {new.shape[1]} numbers, and {self._held.shape[1]} were told")
        start = 0
        while start < len(new):
            if self._filled == len(self._held):
                self._shrink()
            count = min(len(self._held) - self._filled, len(new) - start)
            self._held[self._filled : self._filled + count] = new[start : start + count]
            self._filled, start = self._filled + count, start + count
        self.seen += len(new)
        return self

    def scale(self, factor: float) -> None:
        """As if all rows so far had been multiplied by a power of two."""
        self._held *= factor
        self.error = self.error * factor * factor

    def merge(self, other: FrequentDirections) -> FrequentDirections:
        """Takes in what another one has seen; the errors add up."""
        seen = self.seen + other.seen
        self.update(other._held[: other._filled])
        self.error, self.seen = self.error + other.error, seen
        return self

    @property
    def sketch(self) -> Dense:
        """B (l, d), rows beyond the rank zero."""
        if self._filled > self._rows:
            self._shrink()
        return self._held[: self._rows].copy()

    def _shrink(self) -> None:
        _, s, vh = np.linalg.svd(self._held[: self._filled], full_matrices=False)
        cut = float(s[self._rows - 1] ** 2) if len(s) > self._rows - 1 else 0.0
        kept = np.sqrt(np.maximum(np.square(s[: self._rows]) - cut, 0))
        self._held[:] = 0
        self._held[: len(kept)] = kept[:, None] * vh[: self._rows]
        self._filled = min(int((kept > 0).sum()), self._rows)
        self.error += cut


def block_power(z: Dense, block: Any, heavy: Any = None) -> Dense:
    """One power step on the rows of a stream: B^T (B z) + H^T (H z), of length 1.

    Args:
        z: (d,).
        block: B (n, d).
        heavy: H (h, d), rows that were kept aside; none where None.

    Returns:
        (d,); z itself where nothing is left of it.
    """
    new = block.T @ (block @ z)
    if heavy is not None and len(heavy):
        new = new + heavy.T @ (heavy @ z)
    length = float(np.linalg.norm(new))
    return new / length if length > 0 else z
