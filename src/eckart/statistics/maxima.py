"""Largest magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor


class AbsoluteMaximum:
    """The largest absolute value of each entry of rows (n,)."""

    def __init__(self) -> None:
        self._largest: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Looks at rows (tokens, n)."""
        if len(rows):
            self._see(rows.abs().amax(0))

    def _see(self, found: Tensor) -> None:
        self._largest = found if self._largest is None else torch.maximum(self._largest, found)

    def settle(self) -> None:
        """Does nothing: nothing is added up."""

    def join(self, other: AbsoluteMaximum) -> None:
        """Looks at what another has seen."""
        if other._largest is not None:
            self._see(other._largest)

    def result(self, count: int) -> Tensor:
        """The largest values, float64, in the memory of the CPU; `count` does not matter."""
        assert self._largest is not None
        return self._largest.cpu().double()
