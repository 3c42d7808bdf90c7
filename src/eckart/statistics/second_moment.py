"""E[x x^T], of which only the upper triangle is added up."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

LARGEST = 16384
"""Dimensions above this (a vocabulary) keep only the diagonal."""


class SecondMoment:
    """The sum of x x^T over rows x (n,): (n, n), or (n,), its diagonal, where n is above `LARGEST`.

    Products are added up in float32 and moved to float64 whenever `settle` is called.
    """

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._fresh: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Adds the products of rows (tokens, n), float32."""
        n = rows.shape[1]
        if n > LARGEST:
            self._to_total(rows.square().sum(0))
            return
        if self._fresh is None:
            self._fresh = rows.new_zeros(n, n)
        for start, stop in _stripes(n):
            self._fresh[start:stop, start:].addmm_(rows[:, start:stop].T, rows[:, start:])

    def settle(self) -> None:
        """Moves what was added up in float32 to float64."""
        if self._fresh is not None:
            self._to_total(self._fresh)
            self._fresh = None

    def _to_total(self, value: Tensor) -> None:
        self._total = value.double() if self._total is None else self._total.add_(value)

    def result(self, count: int) -> Tensor:
        """The mean over `count` rows, its lower triangle filled in."""
        assert self._total is not None
        total = self._total.div_(max(1, count))
        if total.ndim == 2:
            for start, stop in _stripes(len(total)):
                total[stop:, start:stop] = total[start:stop, stop:].T
        return total


def _stripes(n: int) -> list[tuple[int, int]]:
    """Row blocks of the upper triangle of an n x n Gram matrix; few enough that each product stays large."""
    parts = max(1, min(8, n // 192))
    edges = [n * i // parts for i in range(parts + 1)]
    return list(pairwise(edges))
