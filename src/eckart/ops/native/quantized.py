"""Codes of 2 to 8 bits with scales, and zero-points or a codebook: the layout of `structures.Quantized`."""

from __future__ import annotations

import ctypes
from math import gcd

import torch
from torch import Tensor

from eckart.ops.native.products import FLOATS, Layout, Leaves, Options, layout, lies
from eckart.ops.packing import CODE_BITS, decode, grouped, row_bytes, unpack


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
        ("bits", ctypes.c_int32),
        ("scale_type", ctypes.c_int32),
        ("book_type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    codes, scales, zeros, codebook = leaves
    bits, group, columns = options
    if codes is None or bits not in CODE_BITS or group < 1 or columns < 1:
        return None
    rows, groups = codes.shape[0], -(-columns // group)
    fits = (
        lies(codes, torch.uint8, rows, row_bytes(columns, bits))
        and lies(scales, tuple(FLOATS), rows, groups)
        and (zeros is None or lies(zeros, torch.uint8, rows, groups))
        and (codebook is None or (zeros is None and lies(codebook, tuple(FLOATS), -1) and len(codebook) <= 1 << bits))
    )
    return (rows, columns) if fits else None


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    codes, scales, zeros, codebook = leaves
    bits, group, columns = options
    assert codes is not None
    assert scales is not None
    return _Quantized(
        codes.data_ptr(),
        scales.data_ptr(),
        None if zeros is None else zeros.data_ptr(),
        None if codebook is None else codebook.data_ptr(),
        codes.shape[0],
        columns,
        codes.shape[1],
        -(-columns * gcd(bits, 8) // 8),
        group,
        scales.shape[1],
        0 if codebook is None else len(codebook),
        bits,
        FLOATS[scales.dtype],
        0 if codebook is None else FLOATS[codebook.dtype],
    )


def _dense(leaves: Leaves, options: Options) -> Tensor:
    codes, scales, zeros, codebook = leaves
    bits, group, columns = options
    assert codes is not None
    assert scales is not None
    points = grouped(unpack(codes, bits, columns), group)
    values = decode(points, scales[..., None], None if zeros is None else zeros[..., None], bits, codebook)
    return values.flatten(-2)[:, :columns]


QUANTIZED = layout(Layout("quantized", _shape, _describe, _dense))
