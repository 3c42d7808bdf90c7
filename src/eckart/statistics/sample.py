"""A few rows of a stream of which nobody knows how long it will be."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLED_TOKENS = 256
"""Most rows that are kept; once there were so many, never fewer than half of it."""


class Sample:
    """Every so many-th row of a stream, twice as far apart whenever there are too many: (n, in), float32."""

    def __init__(self) -> None:
        self.rows = torch.empty(0)
        self._distance = 1
        self._passed = 0

    def add(self, rows: Tensor) -> None:
        """Adds some of the rows (tokens, in)."""
        taken = rows[-self._passed % self._distance :: self._distance]
        self._passed += len(rows)
        self.rows = torch.cat([self.rows, taken]) if len(self.rows) else taken.clone()
        while len(self.rows) > SAMPLED_TOKENS:
            self.rows = self.rows[::2].clone()
            self._distance *= 2

    def settle(self) -> None:
        """Does nothing: nothing is added up."""

    def result(self, count: int) -> Tensor:
        """The rows that were kept, in the memory of the CPU; `count` does not matter."""
        return self.rows.cpu()
