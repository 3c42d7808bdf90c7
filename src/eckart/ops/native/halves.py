"""Entries of 16 bits, row after row: the layout of `structures.Dense` in bfloat16 and float16."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.products import FLOATS, Layout, Leaves, Options, layout, lies


class _Halves(ctypes.Structure):
    """As in `halves.c`."""

    _fields_ = (("entries", ctypes.c_void_p), ("columns", ctypes.c_int64), ("type", ctypes.c_int32))


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    (weight,) = leaves
    if weight is None or not lies(weight, (torch.bfloat16, torch.float16), -1, -1):
        return None
    return weight.shape[0], weight.shape[1]


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    (weight,) = leaves
    assert weight is not None
    return _Halves(weight.data_ptr(), weight.shape[1], FLOATS[weight.dtype])


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    (weight,) = leaves
    assert weight is not None
    return F.linear(x, weight.to(x.dtype))


# PyTorch is as fast for several vectors.
HALVES = layout(Layout("halves", _shape, _describe, _reference, most=1))
