"""Compressed sparse rows: the layout of `structures.Sparse`."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, holding, layout, lies

_INDICES = torch.int16, torch.int32


class _Sparse(ctypes.Structure):
    """As in `sparse.c`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
        ("place_bytes", ctypes.c_int32),
        ("type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    values, places, offsets = leaves
    (columns,) = options
    if values is None or offsets is None or columns < 1 or offsets.ndim != 1 or len(offsets) < 2:
        return None
    fits = lies(values, tuple(FLOATS), -1) and lies(places, _INDICES, len(values))
    return (len(offsets) - 1, columns) if fits and lies(offsets, (*_INDICES, torch.int64), -1) else None


def _sound(leaves: Leaves, options: Options) -> bool:
    values, places, offsets = leaves
    assert values is not None
    assert places is not None
    assert offsets is not None
    starts = offsets.long()
    if int(starts[0]) != 0 or int(starts[-1]) != len(values) or bool((starts.diff() < 0).any()):
        return False
    least, most = (0, 0) if not len(places) else (int(end) for end in places.aminmax())
    return least >= 0 and most < options[0]


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    values, places, offsets = leaves
    assert values is not None
    assert places is not None
    assert offsets is not None
    starts = offsets.long()
    described = _Sparse(
        values.data_ptr(),
        places.data_ptr(),
        starts.data_ptr(),
        options[0],
        places.element_size(),
        FLOATS[values.dtype],
    )
    return holding(described, starts)


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    values, places, offsets = leaves
    assert values is not None
    assert places is not None
    assert offsets is not None
    rows = len(offsets) - 1
    row = torch.arange(rows, device=values.device).repeat_interleave(offsets.long().diff())
    return F.linear(x, values.new_zeros(rows, options[0]).index_put((row, places.long()), values).to(x.dtype))


SPARSE = layout(Layout("sparse", _shape, _describe, _reference, sound=_sound))
