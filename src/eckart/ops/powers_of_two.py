"""Powers of two, by which numbers are scaled without rounding."""

from __future__ import annotations

from math import frexp, ldexp

import torch
from torch import Tensor

_STEP = 1000
"""Exponents at a time, so that the power itself stays in the range of float64."""


def power_of_two(values: Tensor) -> float:
    """A power of two near the largest magnitude among the values; 1 where there is none but zero."""
    largest = max(abs(float(end)) for end in values.detach().aminmax())
    return 2.0 ** min(_STEP, max(-_STEP, frexp(largest)[1])) if largest > 0 else 1.0


def times_power(values: Tensor, exponent: int) -> Tensor:
    """`values * 2^exponent` in their dtype, by way of float64: exact but where that dtype over- or underflows."""
    if exponent == 0:
        return values
    scaled, left = values.to(torch.promote_types(values.dtype, torch.float64)), exponent
    while left:
        step = max(-_STEP, min(_STEP, left))
        scaled, left = scaled * ldexp(1.0, step), left - step
    return scaled.to(values.dtype)
