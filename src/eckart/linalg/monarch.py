"""The nearest matrix whose blocks have a low rank each: the projection onto Monarch matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.linalg.batched_svd import batched_svd
from eckart.linalg.kronecker import largest_divisor
from eckart.structures.base import Cost

BLOCKS = 4
"""Blocks along each side, the default of the authors' code."""


def cuts(shape: tuple[int, int], blocks: int = BLOCKS) -> tuple[int, int]:
    """Into how many parts each side is cut: `blocks` where that divides it, fewer where not.

    Two vectors are less than a block only where it has three rows or columns.
    """
    across, along = (largest_divisor(n, max(1, min(blocks, n // 3))) for n in shape)
    return across, along


def project(weight: Tensor, across: int, along: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best approximations of all blocks at every rank r: left[..., :r] @ right[..., :r, :].

    Args:
        weight: W (out, in).
        across, along: how many parts rows and columns are cut into.

    Returns:
        left (across, along, out / across, k), right (across, along, k, in / along) and the squared error at each rank.
    """
    return batched_svd(cut(weight, across, along))


def cut(weight: Tensor, across: int, along: int) -> Tensor:
    """W (out, in) as blocks (across, along, out / across, in / along); row k of block i is row k across + i of W."""
    out, columns = weight.shape
    return weight.reshape(out // across, across, along, columns // along).permute(1, 2, 0, 3)


def monarch_cost(shape: tuple[int, int], cuts: tuple[int, int], terms: int, dtype: torch.dtype) -> Cost:
    """What a Monarch matrix of that shape costs, in `cuts` blocks of rank `terms`."""
    (out, columns), (a, b) = shape, cuts
    values = terms * (a * columns + b * out)
    return Cost(values, values * dtype.itemsize, values)
