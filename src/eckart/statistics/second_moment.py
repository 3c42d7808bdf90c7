"""E[x x^T], of which only the upper triangle is added up."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

LARGEST = 16384
"""Dimensions above this (a vocabulary) keep only the diagonal."""


class SecondMoment:
    """The sum of x x^T over rows x (n,): (n, n), or (n,), its diagonal, where n is above `LARGEST`.

    Products are added up in float32 where the rows are, and moved to float64 in the memory of the CPU whenever `settle`
    is called: not every device has float64, and the sums of all matrices together are larger than the model. What lies
    left of the blocks on the diagonal is not kept.
    """

    def __init__(self) -> None:
        self._total: list[Tensor] | None = None
        self._fresh: list[Tensor] | None = None

    def add(self, rows: Tensor) -> None:
        """Adds the products of rows (tokens, n), float32."""
        n = rows.shape[1]
        if n > LARGEST:
            self._to_total([rows.square().sum(0)])
            return
        if self._fresh is None:
            self._fresh = [rows.new_zeros(stop - start, n - start) for start, stop in _stripes(n)]
        for (start, stop), block in zip(_stripes(n), self._fresh, strict=True):
            block.addmm_(rows[:, start:stop].T, rows[:, start:])

    def settle(self) -> None:
        """Moves what was added up in float32 to float64."""
        if self._fresh is not None:
            self._to_total(self._fresh)
            self._fresh = None

    def _to_total(self, blocks: list[Tensor]) -> None:
        if self._total is None:
            self._total = [block.cpu().double() for block in blocks]
            return
        for total, block in zip(self._total, blocks, strict=True):
            total.add_(block.cpu())

    def join(self, other: SecondMoment) -> None:
        """Adds another sum, which is settled."""
        assert other._total is not None
        self.settle()
        self._to_total(other._total)

    def result(self, count: int) -> Tensor:
        """The mean over `count` rows: a matrix in float32, as statistics are kept in files; a diagonal in float64."""
        assert self._total is not None
        blocks = [block.div_(max(1, count)) for block in self._total]
        if blocks[0].ndim == 1:
            return blocks[0]
        mean = blocks[0].new_empty(2 * [blocks[0].shape[1]], dtype=torch.float32)
        for (start, stop), block in zip(_stripes(len(mean)), blocks, strict=True):
            mean[start:stop, start:] = block
            mean[stop:, start:stop] = mean[start:stop, stop:].T
        return mean


def _stripes(n: int) -> list[tuple[int, int]]:
    """Row blocks of the upper triangle of an n x n Gram matrix; few enough that each product stays large."""
    parts = max(1, min(8, n // 192))
    edges = [n * i // parts for i in range(parts + 1)]
    return list(pairwise(edges))
