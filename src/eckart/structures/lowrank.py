"""Builders of low-rank products."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.structures.base import Cost
from eckart.structures.compose import Chain, Stack
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Identity
from eckart.structures.leaves import check_distinct, check_range
from eckart.structures.permutation import Permutation


def low_rank(left: Tensor, right: Tensor) -> Chain:
    """W = left @ right, left (out, r), right (r, in): r (out + in) numbers."""
    return Chain(Dense(left), Dense(right))


def pivoted_low_rank(pivots: Tensor, rest: Tensor, rows: Tensor) -> Chain:
    """A product whose left factor holds the identity: r (out + in - r) numbers.

    W[pivots] = rows, and the other rows of W, in ascending order, are rest @ rows.

    Args:
        pivots: (r,), integer, distinct: which rows of W are stored as they are.
        rest: (out - r, r), floating point.
        rows: (r, in), of the same dtype.

    Raises:
        ValueError: shapes that do not fit, or pivots that are not distinct rows of W.
    """
    if pivots.ndim != 1 or rest.ndim != 2 or rows.ndim != 2 or {rest.shape[1], rows.shape[0]} != {pivots.shape[0]}:
        raise ValueError(
            f"pivoted_low_rank needs pivots (r,), rest (out - r, r) and rows (r, in), got {tuple(pivots.shape)}, "
            f"{tuple(rest.shape)} and {tuple(rows.shape)}"
        )
    r, out = pivots.shape[0], rest.shape[0] + pivots.shape[0]
    pivots = pivots.long()
    check_range("pivoted_low_rank", "pivots", pivots, out)
    check_distinct("pivoted_low_rank", "pivots", pivots)
    others = torch.ones(out, dtype=torch.bool, device=pivots.device).index_fill(0, pivots, False)
    source = torch.cat([pivots, others.nonzero()[:, 0]]).argsort()
    if r == out:
        return Chain(Permutation(source), Dense(rows))
    return Chain(Permutation(source), Stack(Identity(r), Dense(rest)), Dense(rows))


def low_rank_cost(out: int, columns: int, rank: int, itemsize: int) -> Cost:
    """The cost of `low_rank` at that rank, entries of `itemsize` bytes."""
    values = rank * (out + columns)
    return Cost(values, values * itemsize, values)


def pivoted_low_rank_cost(out: int, columns: int, rank: int, itemsize: int) -> Cost:
    """The cost of `pivoted_low_rank` at that rank, entries of `itemsize` bytes and a 32-bit index for each row."""
    values = rank * (out + columns - rank)
    return Cost(values, values * itemsize + 4 * out, values)
