"""A bit for each place and the values of those that are set: the layout of `structures.Masked`."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, holding, layout, lies
from eckart.ops.packing import bits_set, row_bytes, unpack


class _Masked(ctypes.Structure):
    """As in `masked.c`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("stored", ctypes.c_int64),
        ("type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    values, mask = leaves
    (columns,) = options
    if mask is None or columns < 1:
        return None
    fits = lies(values, tuple(FLOATS), -1) and lies(mask, torch.uint8, mask.shape[0], row_bytes(columns, 1))
    return (mask.shape[0], columns) if fits else None


def _sound(leaves: Leaves, options: Options) -> bool:
    values, mask = leaves
    assert values is not None
    assert mask is not None
    return int(bits_set(mask).sum()) == len(values)


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    values, mask = leaves
    assert values is not None
    assert mask is not None
    starts = F.pad(bits_set(mask).cumsum(0)[:-1], (1, 0))
    rows, width = mask.shape
    described = _Masked(
        values.data_ptr(),
        mask.data_ptr(),
        starts.data_ptr(),
        rows,
        options[0],
        width,
        len(values),
        FLOATS[values.dtype],
    )
    return holding(described, starts)


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    values, mask = leaves
    assert values is not None
    assert mask is not None
    places = unpack(mask, 1, options[0]).view(torch.bool)
    return F.linear(x, values.new_zeros(places.shape).masked_scatter(places, values).to(x.dtype))


MASKED = layout(Layout("masked", _shape, _describe, _reference, sound=_sound))
