"""Groups of 16 columns: the layout of `structures.GroupSparse`, and of `structures.GroupSparseCodes` at 4 bits."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, holding, layout, lies
from eckart.ops.packing import decode, unpack

GROUP, BITS = 16, 4
_PLACES = torch.uint8, torch.int16, torch.int32


class _GroupSparse(ctypes.Structure):
    """As in `group_sparse.c`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
        ("place_bytes", ctypes.c_int32),
        ("type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    values, codes, scales, places, counts = leaves
    group, columns, bits = options
    if places is None or counts is None or group != GROUP or columns < 1:
        return None
    kept, rows = places.shape[0], counts.shape[0]
    if codes is None:
        stored = scales is None and lies(values, tuple(FLOATS), kept, GROUP)
    else:
        coded = bits == BITS and values is None and lies(codes, torch.uint8, kept, GROUP * BITS // 8)
        stored = coded and lies(scales, tuple(FLOATS), kept)
    return (rows, columns) if stored and lies(places, _PLACES, kept) and lies(counts, _PLACES, rows) else None


def _sound(leaves: Leaves, options: Options) -> bool:
    places, counts = leaves[3:]
    _, columns, _ = options
    assert places is not None
    assert counts is not None
    least, most = (0, 0) if not len(places) else (int(end) for end in places.aminmax())
    fewest, groups = int(counts.min()), -(-columns // GROUP)
    return fewest >= 0 and int(counts.sum()) == len(places) and least >= 0 and most < groups


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    values, codes, scales, places, counts = leaves
    floats = values if scales is None else scales
    assert places is not None
    assert counts is not None
    assert floats is not None
    starts = F.pad(counts.cumsum(0, dtype=torch.int64), (1, 0))
    described = _GroupSparse(
        None if values is None else values.data_ptr(),
        None if codes is None else codes.data_ptr(),
        None if scales is None else scales.data_ptr(),
        places.data_ptr(),
        starts.data_ptr(),
        options[1],
        places.element_size(),
        FLOATS[floats.dtype],
    )
    return holding(described, starts)


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    values, codes, scales, places, counts = leaves
    group, columns, bits = options
    assert places is not None
    assert counts is not None
    if codes is not None:
        assert scales is not None
        values = decode(unpack(codes, bits, group), scales[:, None], None, bits)
    assert values is not None
    rows, groups = counts.shape[0], -(-columns // group)
    row = torch.arange(rows, device=counts.device).repeat_interleave(counts.long())
    spread = values.new_zeros(rows * groups, group).index_copy(0, row * groups + places, values)
    return F.linear(x, spread.view(rows, groups * group)[:, :columns].to(x.dtype))


GROUP_SPARSE = layout(Layout("group_sparse", _shape, _describe, _reference, sound=_sound))
