"""Planes of signs with scales, and offsets or none: the layout of `structures.BinaryCoded`.

And the same for a vector that is rounded to planes of signs itself before it is multiplied.
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.binary_planes import plane_bytes, summed, unpack_planes, untiled
from eckart.ops.input_rounding import round_odd
from eckart.ops.native.layouts import FLOATS, STACK, Layout, Leaves, Options, layout, lies

MOST_PLANES = 8
MOST_PAIRS = 4
"""Planes of W times those of an input up to which bits are counted; for more, tables of sums of inputs are faster."""


class _BinaryCoded(ctypes.Structure):
    """As in `binary_coded.c`."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("planes", ctypes.c_int32),
        ("scale_type", ctypes.c_int32),
        ("offset_type", ctypes.c_int32),
    )


def fitting_group(group: int, columns: int) -> bool:
    """Whether groups are whole runs of sixteen columns, as products and decoded rows take them."""
    return group == columns or (0 < group < columns and group % 16 == 0)


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    codes, scales, offsets = leaves
    group, columns, planes = options
    if codes is None or columns < 1 or not fitting_group(group, columns) or not 1 <= planes <= MOST_PLANES:
        return None
    rows, groups = codes.shape[0], -(-columns // group)
    fits = (
        lies(codes, torch.uint8, rows, planes * plane_bytes(columns))
        and lies(scales, tuple(FLOATS), rows, groups * planes)
        and (offsets is None or lies(offsets, tuple(FLOATS), rows, groups))
    )
    return (rows, columns) if fits else None


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    codes, scales, offsets = leaves
    group, columns, planes = options
    assert codes is not None
    assert scales is not None
    return _BinaryCoded(
        codes.data_ptr(),
        scales.data_ptr(),
        None if offsets is None else offsets.data_ptr(),
        codes.shape[0],
        columns,
        group,
        -(-columns // group),
        planes,
        FLOATS[scales.dtype],
        0 if offsets is None else FLOATS[offsets.dtype],
    )


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    codes, scales, offsets = leaves
    group, columns, planes = options
    assert codes is not None
    assert scales is not None
    signs = unpack_planes(untiled(codes), planes, columns)
    values = summed(signs, untiled(scales), None if offsets is None else untiled(offsets), group)
    return F.linear(x, values.to(x.dtype))


BINARY_CODED = layout(Layout("binary_coded", _shape, _describe, _reference))


class _BitPlanes(ctypes.Structure):
    """As in `bit_planes.c`."""

    _fields_ = (("matrix", _BinaryCoded), ("bits", ctypes.c_int32))


def _rounded_shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    *of_matrix, input_bits = options
    if not 1 <= of_matrix[2] * input_bits <= MOST_PAIRS:
        return None
    shape = _shape(leaves, of_matrix)
    return shape if shape is not None and shape[1] <= STACK else None


def _describe_rounded(leaves: Leaves, options: Options) -> ctypes.Structure:
    *of_matrix, input_bits = options
    return _BitPlanes(_describe(leaves, of_matrix), input_bits)


def _rounded_reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    *of_matrix, input_bits = options
    return _reference(round_odd(x, input_bits), leaves, of_matrix)


# Several vectors are rounded once and multiplied as any others are.
BIT_PLANES = layout(Layout("bit_planes", _rounded_shape, _describe_rounded, _rounded_reference, most=1))
