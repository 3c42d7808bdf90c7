"""Rows that pick an input or combine all of them: the layout of the left factor of `structures.Interpolative`."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, layout, lies


class _Combined(ctypes.Structure):
    """As in `combined.c`."""

    _fields_ = (
        ("index", ctypes.c_void_p),
        ("rest", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    index, rest = leaves
    if rest is None or not lies(rest, tuple(FLOATS), -1, -1) or not rest.shape[1]:
        return None
    rows, columns = sum(rest.shape), rest.shape[1]
    return (rows, columns) if lies(index, torch.int32, rows) else None


def _sound(leaves: Leaves, options: Options) -> bool:
    index, rest = leaves
    assert index is not None
    assert rest is not None
    least, most = (int(end) for end in index.aminmax())
    return least >= 0 and most < sum(rest.shape)


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    index, rest = leaves
    assert index is not None
    assert rest is not None
    return _Combined(index.data_ptr(), rest.data_ptr(), sum(rest.shape), rest.shape[1], FLOATS[rest.dtype])


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    index, rest = leaves
    assert index is not None
    assert rest is not None
    return torch.cat((x, F.linear(x, rest.to(x.dtype))), -1)[..., index.long()]


COMBINED = layout(Layout("combined", _shape, _describe, _reference, sound=_sound))
