"""Checks that constructors and `check_values` share."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused, abridged

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def float_leaf(owner: str, name: str, tensor: Tensor, ndim: int) -> Tensor:
    """`tensor`, once it is known to be a floating-point tensor of `ndim` dimensions; else Refused."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.ndim != ndim:
        raise Refused(f"{owner}: {name} must be a floating-point tensor of {ndim} dimensions, got {_say(tensor)}")
    return tensor


def index_leaf(
    owner: str, name: str, tensor: Tensor, ndim: int, limit: int, dtype: torch.dtype | None = None
) -> Tensor:
    """`tensor` of integers in 0..limit, in the smallest dtype that holds them (or in `dtype`); else Refused.

    Entries outside 0..limit are clamped to -1 and limit + 1, so that the narrow dtype cannot wrap them into range and
    `check_values` still sees that they are impossible.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype not in _INTEGERS or tensor.ndim != ndim:
        raise Refused(f"{owner}: {name} must be an integer tensor of {ndim} dimensions, got {_say(tensor)}")
    dtype = dtype or index_dtype(limit)
    return tensor if tensor.dtype == dtype else tensor.long().clamp(-1, limit + 1).to(dtype)


def size_option(owner: str, name: str, value: int, least: int = 1) -> int:
    """`value`, once it is known to be an integer of at least `least`; else Refused."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Refused(f"{owner}: {name} must be an integer of at least {least}, got {abridged(value)}")
    return value


def flag_option(owner: str, name: str, value: bool) -> bool:
    """`value`, once it is known to be a bool; else Refused."""
    if not isinstance(value, bool):
        raise Refused(f"{owner}: {name} must be true or false, got {abridged(value)}")
    return value


def index_dtype(limit: int) -> torch.dtype:
    """The smallest signed dtype of at least 16 bits that holds -1..limit + 1.

    >>> index_dtype(4096), index_dtype(50257)
    (torch.int16, torch.int32)
    """
    return next((d for d in (torch.int16, torch.int32) if limit + 1 <= torch.iinfo(d).max), torch.int64)


def check_range(owner: str, name: str, index: Tensor, limit: int) -> None:
    """Refused unless every entry lies in 0..limit - 1."""
    bad = index[(index < 0) | (index >= limit)]
    if bad.numel():
        raise Refused(f"{owner}: {name} holds {int(bad.flatten()[0])}, outside 0..{limit - 1}")


def check_distinct(owner: str, name: str, index: Tensor, dim: int = 0) -> None:
    """Refused where two entries along `dim` are equal."""
    if (index.sort(dim).values.diff(dim=dim) == 0).any():
        raise Refused(f"{owner}: {name} names a position twice")


def _say(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else abridged(value)
