"""A few rows of a stream of which nobody knows how long it will be."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLED_TOKENS = 256
"""Most rows of inputs that are kept; once there were so many, never fewer than half of it."""
SAMPLED_PAIRS = 512
"""Most pairs of inputs and gradients that are kept, likewise."""


class Sample:
    """Every so many-th row of a stream, twice as far apart whenever there are too many: (n, in), float32.

    Args:
        most: rows that are kept.
    """

    def __init__(self, most: int = SAMPLED_TOKENS) -> None:
        self.most = most
        self.rows = torch.empty(0)
        self._distance = 1
        self._start = 0
        self._passed = 0

    def start_behind(self, passed: int) -> None:
        """Says, before any row is added, how many rows of the stream came before, which another sample was given."""
        self._start = self._passed = passed

    def add(self, rows: Tensor) -> None:
        """Adds some of the rows (tokens, in)."""
        taken = rows[-self._passed % self._distance :: self._distance]
        self._passed += len(rows)
        self.rows = torch.cat([self.rows, taken]) if len(self.rows) else taken.clone()
        self._thin()

    def join(self, other: Sample) -> None:
        """Adds what a sample was given that started behind these rows."""
        while self._distance != other._distance:
            (self if self._distance < other._distance else other)._twice_as_far()
        rows = [part.rows for part in (self, other) if len(part.rows)]
        self.rows = torch.cat(rows) if rows else self.rows
        self._passed = other._passed
        self._thin()

    def _thin(self) -> None:
        while len(self.rows) > self.most:
            self._twice_as_far()

    def _twice_as_far(self) -> None:
        """Keeps the rows whose place in the stream is a multiple of twice the distance."""
        first = -(-self._start // self._distance) % 2
        self.rows = self.rows[first::2].clone()
        self._distance *= 2

    def settle(self) -> None:
        """Does nothing: nothing is added up."""

    def result(self, count: int) -> Tensor:
        """The rows that were kept, in the memory of the CPU; `count` does not matter."""
        return self.rows.cpu()
