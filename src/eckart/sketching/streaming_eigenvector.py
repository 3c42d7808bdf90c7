"""The first right singular vector of rows that come once, in any blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.linalg.streams import FrequentDirections
from eckart.sketching.contract import sketch


class HeavyRows:
    """Block power steps over a stream, with long rows kept aside.

    A row is heavy if its square is at least a share 1/`memory` of the squares so far; of these at most `memory` are
    kept, the longest. Blocks grow with the stream: a step is made when the squares of the rows have doubled.

    Args:
        memory: heavy rows at most.
        generator: of the first vector.
    """

    def __init__(self, memory: int, generator: Seed = None) -> None:
        self._memory, self._rng = memory, generator_of(generator)
        self.vector = self.heavy = self._gathered = np.empty(0)
        self._squares = self._at_step = 0.0
        self.steps = 0

    def partial_fit(self, rows: Dense) -> HeavyRows:
        """Takes in rows (n, d).

        Raises:
            Refused: they are of another width than those before, or no matrix.
        """
        rows = dense(rows, "the rows")
        if len(self.vector) and rows.shape[1] != len(self.vector):
            raise Refused(f"rows of {rows.shape[1]} numbers, and those before had {len(self.vector)}")
        for row in rows:
            self._row(row)
        return self

    def finished(self) -> Dense:
        """The vector after a step with what has come since the last one."""
        return self._stepped()

    def _row(self, row: Dense) -> None:
        if not len(self.vector):
            z = self._rng.standard_normal(len(row))
            self.vector, self.heavy = z / np.linalg.norm(z), np.empty((0, len(row)))
            self._gathered = np.zeros(len(row))
        square = float(row @ row)
        self._squares += square
        light = row
        if square * self._memory >= self._squares > 0:
            held = np.concatenate([self.heavy, row[None]])
            lengths = np.square(held).sum(1)
            out = int(lengths.argmin())
            if len(held) > self._memory or lengths[out] * self._memory < self._squares:
                light, held = held[out], np.delete(held, out, 0)
            else:
                light = np.zeros(0)
            self.heavy = held
        if len(light):
            self._gathered = self._gathered + (light @ self.vector) * light
        if self._squares >= 2 * self._at_step:
            self._at_step = self._squares
            self.vector, self._gathered = self._stepped(), np.zeros(len(row))
            self.steps += 1

    def _stepped(self) -> Dense:
        new = self._gathered + self.heavy.T @ (self.heavy @ self.vector)
        length = float(np.linalg.norm(new))
        return new / length if length > 0 else self.vector


def _stream(generator: np.random.Generator) -> dict[str, Any]:
    """300 rows with one direction that stands out."""
    return {"rows": generator.standard_normal((300, 6)) * [3.0, 1, 1, 1, 1, 1], "memory": 4}


@sketch(
    "streaming-eigenvector",
    paper="Kacham and Woodruff 2024, arXiv 2412.11963",
    gives="a unit vector (d,)",
    error="correlation^2 with the exact one at least 1 - O(1/sqrt R), R = s_1^2/s_2^2, in random order; for Frequent "
    "Directions a bound of what A^T A has more than the summary is stated",
    problem=_stream,
)
def top_eigenvector(
    rows: Array | Iterable[Array],
    memory: int,
    *,
    method: Literal["frequent-directions", "heavy-rows"] = "frequent-directions",
    generator: Seed = None,
) -> Solution[Array]:
    """The top eigenvector of A^T A from one pass over the rows of A, with few of them held.

    "heavy-rows" is the paper's: block power steps on rows in random order, rows that are long kept apart, without which
    they spoil the blocks. Frequent Directions with as many rows was as good or better wherever it was tried, needs no
    random order, and is the default.

    Args:
        rows: A (n, d), or an iterable of its blocks.
        memory: rows that are held: l of Frequent Directions (which holds 2 l), or the heavy ones.
        method: how.
        generator: of the first vector of "heavy-rows".

    Returns:
        v of the kind of the rows, its largest entry positive; `error` the bound of the summary, or None.
    """
    blocks = [rows] if hasattr(rows, "ndim") else rows
    if memory < 1 or method not in ("frequent-directions", "heavy-rows"):
        raise Refused(f"memory={memory} and method={method!r}: at least one row; frequent-directions or heavy-rows")
    summary: FrequentDirections | None = None
    heavy, like, seen = HeavyRows(memory, generator), None, 0
    for block in blocks:
        part, like = dense(block, "a block of rows"), block
        seen += len(part)
        if method == "heavy-rows":
            heavy.partial_fit(part)
        else:
            summary = summary or FrequentDirections(memory, part.shape[1])
            summary.update(part)
    if not seen:
        raise Refused("a stream without rows has no eigenvector")
    if summary is None:
        v, error, steps = heavy.finished(), None, heavy.steps
    else:
        v, error, steps = np.linalg.svd(summary.sketch)[2][0], summary.error, seen
    v = v * (1 if v[np.abs(v).argmax()] >= 0 else -1)
    return Solution(back(v, like), True, steps, error=error)
