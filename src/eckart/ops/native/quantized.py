"""Codes of 2 to 8 bits with scales, and zero-points or a codebook: the layout of `structures.Quantized`.

And the same for a vector that is rounded to integers before it is multiplied.
"""

from __future__ import annotations

import ctypes
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.input_rounding import round_symmetric
from eckart.ops.native.layouts import FLOATS, STACK, Layout, Leaves, Options, layout, lies
from eckart.ops.packing import CODE_BITS, decode, grouped, row_bytes, unpack

GROUPS = 1 << 16
"""Groups of a row whose zero-points fit the stack of a thread."""


class _Quantized(ctypes.Structure):
    """As in `quantized.c`."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("zeros", ctypes.c_void_p),
        ("book", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("run", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("levels", ctypes.c_int64),
        ("zero_width", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("scale_type", ctypes.c_int32),
        ("book_type", ctypes.c_int32),
        ("packed_zeros", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    codes, scales, zeros, codebook, packed_zeros = leaves
    bits, group, columns = options
    if codes is None or bits not in CODE_BITS or group < 1 or columns < 1:
        return None
    rows, groups = codes.shape[0], -(-columns // group)
    fits = (
        lies(codes, torch.uint8, rows, row_bytes(columns, bits))
        and lies(scales, tuple(FLOATS), rows, groups)
        and groups <= GROUPS
        and (zeros is None or lies(zeros, torch.uint8, rows, groups))
        and (packed_zeros is None or lies(packed_zeros, torch.uint8, rows, row_bytes(groups, bits)))
        and (codebook is None or (lies(codebook, tuple(FLOATS), -1) and len(codebook) <= 1 << bits))
        and sum(given is not None for given in (zeros, packed_zeros, codebook)) <= 1
    )
    return (rows, columns) if fits else None


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    codes, scales, zeros, codebook, packed_zeros = leaves
    bits, group, columns = options
    assert codes is not None
    assert scales is not None
    offsets = zeros if packed_zeros is None else packed_zeros
    return _Quantized(
        codes.data_ptr(),
        scales.data_ptr(),
        None if offsets is None else offsets.data_ptr(),
        None if codebook is None else codebook.data_ptr(),
        codes.shape[0],
        columns,
        codes.shape[1],
        -(-columns * gcd(bits, 8) // 8),
        group,
        scales.shape[1],
        0 if codebook is None else len(codebook),
        0 if offsets is None else offsets.shape[1],
        bits,
        FLOATS[scales.dtype],
        0 if codebook is None else FLOATS[codebook.dtype],
        packed_zeros is not None,
    )


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    codes, scales, zeros, codebook, packed_zeros = leaves
    bits, group, columns = options
    assert codes is not None
    assert scales is not None
    if packed_zeros is not None:
        zeros = unpack(packed_zeros, bits, scales.shape[1])
    points = grouped(unpack(codes, bits, columns), group)
    values = decode(points, scales[..., None], None if zeros is None else zeros[..., None], bits, codebook)
    return F.linear(x, values.flatten(-2)[:, :columns].to(x.dtype))


QUANTIZED = layout(Layout("quantized", _shape, _describe, _reference))


class _QuantizedRounded(ctypes.Structure):
    """As in `quantized_rounded.c`."""

    _fields_ = (("matrix", _Quantized), ("top", ctypes.c_int32))


def _rounded_shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    *of_matrix, input_bits = options
    if leaves[3] is not None or input_bits not in CODE_BITS:
        return None
    shape = _shape(leaves, of_matrix)
    return shape if shape is not None and shape[1] <= STACK else None


def _describe_rounded(leaves: Leaves, options: Options) -> ctypes.Structure:
    *of_matrix, input_bits = options
    return _QuantizedRounded(_describe(leaves, of_matrix), (1 << (input_bits - 1)) - 1)


def _rounded_reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    *of_matrix, input_bits = options
    return _reference(round_symmetric(x, input_bits, x.shape[-1]), leaves, of_matrix)


# Several vectors are rounded once and multiplied as any others are.
ROUNDED = layout(Layout("quantized_rounded", _rounded_shape, _describe_rounded, _rounded_reference, most=1, pieces=8))
