"""Entries of any float type, row after row: the layout of `structures.Dense`."""

from __future__ import annotations

import ctypes

import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, layout, lies


class _Dense(ctypes.Structure):
    """As in `dense.c`."""

    _fields_ = (("entries", ctypes.c_void_p), ("columns", ctypes.c_int64), ("type", ctypes.c_int32))


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    (weight,) = leaves
    if weight is None or not lies(weight, tuple(FLOATS), -1, -1) or not weight.numel():
        return None
    return weight.shape[0], weight.shape[1]


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    (weight,) = leaves
    assert weight is not None
    return _Dense(weight.data_ptr(), weight.shape[1], FLOATS[weight.dtype])


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    (weight,) = leaves
    assert weight is not None
    return F.linear(x, weight.to(x.dtype))


DENSE = layout(Layout("dense", _shape, _describe, _reference))
