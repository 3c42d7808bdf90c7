"""Sums in float64."""

from __future__ import annotations

from torch import Tensor


class Sum:
    """A sum of values of one shape, in the memory of the CPU."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, value: Tensor) -> None:
        """Adds a value, which has the shape of all others."""
        here = value.cpu()
        self._total = here.double() if self._total is None else self._total.add_(here)

    def settle(self) -> None:
        """Does nothing: no sum is in float32."""

    def join(self, other: Sum) -> None:
        """Adds another sum."""
        assert other._total is not None
        Sum.add(self, other._total)  # a row already, where rows are added

    def result(self, count: int) -> Tensor:
        """The sum by `count`."""
        assert self._total is not None
        # In place: together the sums are as large as several models.
        return self._total.div_(max(1, count))


class RowSum(Sum):
    """The sum of rows (n,)."""

    def add(self, rows: Tensor) -> None:
        """Adds rows (tokens, n)."""
        super().add(rows.sum(0))


class AbsoluteSum(Sum):
    """The sum of the absolute values of rows (n,)."""

    def add(self, rows: Tensor) -> None:
        """Adds rows (tokens, n)."""
        super().add(rows.abs().sum(0))
