"""The first right singular vector of rows that come once, in any blocks."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Literal

import numpy as np

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of, of_dask, power_of_two, row_blocks
from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.linalg.streams import FrequentDirections
from eckart.scikit.base import Estimator, at_least_one, generator_from, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.files import rebuilds_by_attributes
from eckart.scikit.planted import Planted
from eckart.sketching.contract import estimates, sketch

LEAST = 2.0**-1074
"""The unit of rows of zeros."""


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

    def scale(self, factor: float) -> None:
        """As if all rows so far had been multiplied by a power of two."""
        self.heavy, self._gathered = self.heavy * factor, self._gathered * factor * factor
        self._squares, self._at_step = (square * factor * factor for square in (self._squares, self._at_step))

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


def _all_held(rng: np.random.Generator) -> Planted:
    """As many rows are held as come."""
    given = _stream(rng) | {"memory": 300}
    exact = np.linalg.svd(given["rows"], full_matrices=False)[2][0]
    return Planted(given, lambda found: 1 - (found.value @ exact) ** 2 + found.error, 1e-10)


@sketch(
    "streaming-eigenvector",
    paper="Kacham and Woodruff 2024, arXiv 2412.11963",
    gives="a unit vector (d,)",
    error="correlation^2 with the exact one at least 1 - O(1/sqrt R), R = s_1^2/s_2^2, in random order; for Frequent "
    "Directions a bound of what A^T A has more than the summary is stated",
    problem=_stream,
    limit=_all_held,
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
    they spoil the blocks. Frequent Directions with as many rows is better by orders of magnitude where the first
    direction stands out, or where many rows are held; it needs no random order, and is the default. With few rows, and
    a second direction that is nearly as long, neither finds the first.

    Args:
        rows: A (n, d), an iterable of its blocks, or an array of Dask, which is read block by block.
        memory: rows that are held: l of Frequent Directions (which holds 2 l), or the heavy ones.
        method: how.
        generator: of the first vector of "heavy-rows".

    Returns:
        v of the kind of the rows, its largest entry positive; `error` the bound of the summary, or None.
    """
    blocks: Any = row_blocks(rows) if of_dask(rows) else [rows] if hasattr(rows, "ndim") else rows
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
        v, error, steps = np.linalg.svd(summary.sketch, full_matrices=False)[2][0], summary.error, seen
    return Solution(back(_signed(v), like), True, steps, error=error)


def _signed(v: Dense) -> Dense:
    """v or -v, the largest entry positive."""
    return v * (1 if v[np.abs(v).argmax()] >= 0 else -1)


rebuilds_by_attributes("heavy_rows", HeavyRows)
rebuilds_by_attributes("frequent_directions", FrequentDirections)


def _direction(rng: np.random.Generator) -> Planted:
    """Rows with one direction that stands out."""
    v = rng.standard_normal(6)
    v /= np.linalg.norm(v)
    x = rng.standard_normal((200, 6)) + 5 * rng.standard_normal((200, 1)) * v
    return Planted({"X": x}, lambda fitted: 1 - float(fitted.component_ @ v) ** 2, 0.01, {"memory": 4})


@estimates("streaming-eigenvector", kind="transformer", planted=_direction, takes="arrays of Dask")
class TopEigenvector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """The first right singular vector of rows that come in blocks, of which few are held; nothing is centred.

    `partial_fit` takes in a block, and `fit` one that is all; see `top_eigenvector` for the two ways.

    Args:
        memory: rows that are held: l of Frequent Directions (which holds 2 l), or the heavy ones.
        method: "frequent-directions", or "heavy-rows", the paper's, for rows in random order.
        random_state: of the first vector of "heavy-rows".

    Attributes:
        component_: v (features,), its largest entry positive.
        bound_: what A^T A has more than the summary in any direction, at most, in squares of X; NaN for "heavy-rows".
        n_samples_seen_: rows so far.
        unit_: the power of two that rows are divided by, so that the largest so far is about 1.
        stream_: what is held of the rows.
    """

    def __init__(
        self,
        memory: int = 16,
        *,
        method: Literal["frequent-directions", "heavy-rows"] = "frequent-directions",
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.memory = memory
        self.method = method
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> TopEigenvector:
        """Forgets what was seen and takes in X (samples, features); itself."""
        if hasattr(self, "stream_"):
            del self.stream_
        return self.partial_fit(X)

    def partial_fit(self, X: Any, y: Any = None) -> TopEigenvector:
        """Takes in rows X (samples, features), of Dask too, block by block; they are not kept. Itself."""
        if of_dask(X):
            for block in row_blocks(X):
                self.partial_fit(block)
            return self
        fresh = not hasattr(self, "stream_")
        x = self._table(X, fit=fresh)
        if fresh:
            at_least_one(memory=self.memory)
            if self.method not in ("frequent-directions", "heavy-rows"):
                raise Refused(f"method={self.method!r}: there are frequent-directions and heavy-rows")
            self.n_samples_seen_, self.unit_ = 0, LEAST
            self.stream_: HeavyRows | FrequentDirections = (
                HeavyRows(self.memory, generator_from(self.random_state))
                if self.method == "heavy-rows"
                else FrequentDirections(self.memory, x.shape[1])
            )
        self.n_samples_seen_ += len(x)
        unit = power_of_two(x) if x.any() else LEAST
        if unit > self.unit_:
            self.stream_.scale(self.unit_ / unit)
            self.unit_ = unit
        if isinstance(self.stream_, HeavyRows):
            v, bound = self.stream_.partial_fit(x / self.unit_).finished(), np.nan
        else:
            # Of a copy, because to ask for B lowers the rows that are held.
            summary = deepcopy(self.stream_.update(x / self.unit_))
            v, bound = np.linalg.svd(summary.sketch, full_matrices=False)[2][0], summary.error
        self.component_, self.bound_ = _signed(v), float(bound * self.unit_) * self.unit_
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """X v (samples, 1)."""
        return self._table(X) @ self.component_[:, None]

    @property
    def _n_features_out(self) -> int:
        return 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
