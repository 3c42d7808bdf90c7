"""As many values in each column: the layout of `structures.ColumnSparse`, and what adds up its blocks."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, layout, lies

BLOCKS = 8
"""The most blocks of columns that threads share."""


class _ColumnSparse(ctypes.Structure):
    """As in `column_sparse.c`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("stored", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("place_bytes", ctypes.c_int32),
        ("type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    values, places = leaves
    size, blocks = options
    if values is None or not lies(values, tuple(FLOATS), -1, -1) or not values.numel() or size < 1 or blocks < 1:
        return None
    return (size * blocks, values.shape[1]) if lies(places, (torch.int16, torch.int32), *values.shape) else None


def _sound(leaves: Leaves, options: Options) -> bool:
    places = leaves[1]
    assert places is not None
    least, most = (int(end) for end in places.aminmax())
    return least >= 0 and most < options[0]


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    values, places = leaves
    assert values is not None
    assert places is not None
    size, blocks = options
    return _ColumnSparse(
        values.data_ptr(), places.data_ptr(), *values.shape, size, blocks, places.element_size(), FLOATS[values.dtype]
    )


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    values, places = leaves
    size, blocks = options
    assert values is not None
    assert places is not None
    columns = values.shape[1]
    block = torch.arange(columns, device=values.device) // -(-columns // blocks)
    spread = values.new_zeros(size * blocks, columns).scatter(0, places.long() + size * block, values)
    return F.linear(x, spread.to(x.dtype))


def _in_one_block(options: Options) -> bool:
    return options[1] == 1


COLUMN_SPARSE = layout(
    Layout("column_sparse", _shape, _describe, _reference, pieces=BLOCKS, sound=_sound, by_columns=_in_one_block)
)


class _Folded(ctypes.Structure):
    """As in `folded.c`."""

    _fields_ = (("size", ctypes.c_int64), ("blocks", ctypes.c_int64))


def _folded_shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    size, blocks = options
    return size, size * blocks


def _describe_folded(leaves: Leaves, options: Options) -> ctypes.Structure:
    return _Folded(*options)


def _folded_reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    size, blocks = options
    return x.reshape(*x.shape[:-1], blocks, size).sum(-2)


FOLDED = layout(Layout("folded", _folded_shape, _describe_folded, _folded_reference, pieces=1))
