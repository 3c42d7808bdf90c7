"""n of every m neighbours in a row: the layout of `structures.SemiSparse` for 4, 8 or 16 neighbours."""

from __future__ import annotations

import ctypes
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, holding, layout, lies
from eckart.ops.packing import row_bytes, unpack

_BITS = {4: 2, 8: 3, 16: 4}
"""Of a place among so many neighbours; no place of so many bits is outside of its group."""


class _SemiSparse(ctypes.Structure):
    """As in `semisparse.c`."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("groups", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("kept", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("run", ctypes.c_int64),
        ("n", ctypes.c_int32),
        ("m", ctypes.c_int32),
        ("bits", ctypes.c_int32),
        ("type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    values, places = leaves
    n, m, columns = options
    if values is None or m not in _BITS or not 1 <= n <= m or columns < 1 or values.ndim != 2:
        return None
    rows, kept = values.shape[0], n * -(-columns // m)
    width = row_bytes(kept, _BITS[m])
    return (
        (rows, columns) if lies(values, tuple(FLOATS), rows, kept) and lies(places, torch.uint8, rows, width) else None
    )


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    values, places = leaves
    n, m, columns = options
    assert values is not None
    assert places is not None
    rows, kept = values.shape
    groups = torch.arange(0, kept // n * m, m, dtype=torch.int32, device="cpu").repeat_interleave(n)
    described = _SemiSparse(
        values.data_ptr(),
        places.data_ptr(),
        groups.data_ptr(),
        rows,
        columns,
        kept,
        places.shape[1],
        -(-kept * gcd(_BITS[m], 8) // 8),
        n,
        m,
        _BITS[m],
        FLOATS[values.dtype],
    )
    return holding(described, groups)


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    values, places = leaves
    n, m, columns = options
    assert values is not None
    assert places is not None
    rows, kept = values.shape
    start = torch.arange(0, kept // n * m, m, device=values.device).repeat_interleave(n)
    whole = values.new_zeros(rows, kept // n * m)
    return F.linear(x, whole.scatter_(1, unpack(places, _BITS[m], kept) + start, values)[:, :columns].to(x.dtype))


SEMISPARSE = layout(Layout("semisparse", _shape, _describe, _reference))
