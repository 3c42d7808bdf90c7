"""Products of two thin factors."""

from __future__ import annotations

from torch import Tensor

from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense


def low_rank(left: Tensor, right: Tensor) -> Chain:
    """W = left @ right, left (out, r), right (r, in): r (out + in) numbers."""
    return Chain(Dense(left), Dense(right))


def low_rank_cost(out: int, columns: int, rank: int, itemsize: int) -> Cost:
    """The cost of `low_rank` at that rank, entries of `itemsize` bytes."""
    values = rank * (out + columns)
    return Cost(values, values * itemsize, values)
