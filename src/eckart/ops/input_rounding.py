"""Inputs rounded to integers of a few bits, each token on a grid of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.ops.packing import grouped


def symmetric_codes(x: Tensor, bits: int, group: int) -> tuple[Tensor, Tensor]:
    """Integers q and scales s with x about s q, for each run of `group` inputs of a token.

    `s = max|x| / (2^(bits-1) - 1)` and q = x / s, rounded half to even and kept within +-(2^(bits-1) - 1). Zeros where
    a group is zero, or so small that s is; NaN in a whole group that holds NaN or an infinity.

    Args:
        x: (..., columns), float32 or float64.
        bits: 2 to 8.
        group: 1 to columns; the last group is shorter where it does not divide them.

    Returns:
        q (..., groups, group), zeros behind a short last group, and s (..., groups, 1), both in the dtype of x.
    """
    top = (1 << (bits - 1)) - 1
    runs = grouped(x, group)
    scales = runs.abs().amax(-1, keepdim=True) / top
    codes = (runs / torch.where(scales == 0, torch.ones_like(scales), scales)).round().clamp(-top, top)
    return torch.where(scales == 0, torch.zeros_like(codes), codes), scales


def round_symmetric(x: Tensor, bits: int, group: int) -> Tensor:
    """`s q` of `symmetric_codes`, in the dtype of x; 16-bit x is rounded in float32.

    The gradient passes as if nothing were rounded.

    Args:
        x: (..., columns), floating point.
        bits: 2 to 8.
        group: 1 to columns.
    """
    rounded: Tensor = _Rounded.apply(x, bits, group)  # type: ignore[no-untyped-call]
    return rounded


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int, group: int) -> Tensor:
        codes, scales = symmetric_codes(x.to(torch.promote_types(x.dtype, torch.float32)), bits, group)
        return (codes * scales).flatten(-2)[..., : x.shape[-1]].to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None
