"""Inputs rounded to few bits, each token on a grid of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.machine import wide
from eckart.ops.packing import grouped

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of `FLOAT8`."""


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
    # In place: for many tokens, new memory takes longer than what is computed in it.
    codes = (runs / torch.where(scales == 0, torch.inf, scales)).round_().clamp_(-top, top)
    return codes, scales


def round_symmetric(x: Tensor, bits: int, group: int) -> Tensor:
    """`s q` of `symmetric_codes`, in the dtype of x; 16-bit x is rounded in float32.

    The gradient passes as if nothing were rounded.

    Args:
        x: (..., columns), floating point.
        bits: 2 to 8.
        group: 1 to columns.
    """
    with torch.no_grad():
        codes, scales = symmetric_codes(_wide(x), bits, group)
        rounded = codes.mul_(scales).flatten(-2)[..., : x.shape[-1]].to(x.dtype)
    return _passing(x, rounded)


def nearest_odd(x: Tensor, bits: int) -> Tensor:
    """The odd integer below `2^bits` that is nearest to each x, the upper one of two; in the dtype of x."""
    top = (1 << bits) - 1
    return (x / 2).floor().mul(2).add(1).clamp(-top, top)


def odd_integers(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Odd integers k and a scale t with x about t k, for each token: sums of `bits` signs times powers of two.

    k is the odd integer nearest to `x (2^bits - 1) / max|x|`, |k| < 2^bits, and `t = sum x k / sum k^2`, which is of
    least squares. There is no zero among odd integers; t is zero where a token is, or so small that its unit is. NaN in
    a whole token that holds NaN or an infinity.

    Args:
        x: (..., columns), float32 or float64.
        bits: 1 to 8.

    Returns:
        k (..., columns) and t (..., 1), in the dtype of x.
    """
    unit = x.abs().amax(-1, keepdim=True) / ((1 << bits) - 1)
    k = nearest_odd(x / torch.where(unit == 0, torch.inf, unit), bits)
    exact = wide(k)
    t = (x.to(exact) * exact).sum(-1, keepdim=True) / exact.square().sum(-1, keepdim=True)
    return k, torch.where(unit == 0, torch.zeros_like(unit), t.to(x.dtype))


def round_odd(x: Tensor, bits: int) -> Tensor:
    """`t k` of `odd_integers`, in the dtype of x; 16-bit x is rounded in float32.

    The gradient passes as if nothing were rounded.

    Args:
        x: (..., columns), floating point.
        bits: 1 to 8.
    """
    with torch.no_grad():
        k, t = odd_integers(_wide(x), bits)
        rounded = (t * k).to(x.dtype)
    return _passing(x, rounded)


def round_float8(x: Tensor) -> Tensor:
    """x of each token as numbers of 8 bits (E4M3) times a scale, `max|x| / 448`; in the dtype of x.

    The scale has the eight binary digits of bfloat16.

    Tokens that are zero, or so small that the scale is, give zeros; those that hold NaN or an infinity NaN. The
    gradient passes as if nothing were rounded.

    Args:
        x: (..., columns), floating point.
    """
    with torch.no_grad():
        wide = _wide(x)
        # Eight digits, as bfloat16 has, and the exponents of the inputs' own dtype.
        mantissa, exponent = torch.frexp(wide.abs().amax(-1, keepdim=True) / LARGEST)
        scales = mantissa.to(torch.bfloat16).to(wide.dtype) * torch.exp2(exponent.to(wide.dtype))
        inside = (wide / torch.where(scales == 0, torch.ones_like(scales), scales)).clamp(-LARGEST, LARGEST)
        rounded = (inside.to(FLOAT8).to(wide.dtype) * scales).to(x.dtype)
    return _passing(x, rounded)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _passing(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of x."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return rounded
    passed: Tensor = _Passing.apply(x, rounded)  # type: ignore[no-untyped-call]
    return passed


class _Passing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
