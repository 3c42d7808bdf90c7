"""Codes for vectors of rows with scales and one codebook: the layout of `structures.VectorQuantized`."""

from __future__ import annotations

import ctypes
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.native.layouts import FLOATS, Layout, Leaves, Options, layout, lies
from eckart.ops.packing import CODE_BITS, row_bytes, unpack
from eckart.ops.vector_codebooks import decode_vectors

LENGTHS = (1, 2, 4)
"""Rows that can share a code."""


class _VectorQuantized(ctypes.Structure):
    """As in `vector_quantized.c`."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("book", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("run", ctypes.c_int64),
        ("group", ctypes.c_int64),
        ("bits", ctypes.c_int32),
        ("length", ctypes.c_int32),
        ("scale_type", ctypes.c_int32),
        ("book_type", ctypes.c_int32),
    )


def _shape(leaves: Leaves, options: Options) -> tuple[int, int] | None:
    codes, scales, codebook = leaves
    bits, length, group, columns = options
    if scales is None or scales.ndim != 2 or bits not in CODE_BITS or length not in LENGTHS or min(group, columns) < 1:
        return None
    rows = scales.shape[1]
    fits = (
        lies(codes, torch.uint8, -(-rows // length), row_bytes(columns, bits))
        and lies(scales, tuple(FLOATS), -(-columns // group), rows)
        and lies(codebook, tuple(FLOATS), 1 << bits, length)
        and rows > 0
    )
    return (rows, columns) if fits else None


def _describe(leaves: Leaves, options: Options) -> ctypes.Structure:
    codes, scales, codebook = leaves
    bits, length, group, columns = options
    assert codes is not None
    assert scales is not None
    assert codebook is not None
    return _VectorQuantized(
        codes.data_ptr(),
        scales.data_ptr(),
        codebook.data_ptr(),
        scales.shape[1],
        columns,
        codes.shape[1],
        -(-columns * gcd(bits, 8) // 8),
        group,
        bits,
        length,
        FLOATS[scales.dtype],
        FLOATS[codebook.dtype],
    )


def _reference(x: Tensor, leaves: Leaves, options: Options) -> Tensor:
    codes, scales, codebook = leaves
    bits, _, group, columns = options
    assert codes is not None
    assert scales is not None
    assert codebook is not None
    return F.linear(x, decode_vectors(unpack(codes, bits, columns), scales.T, codebook, group).to(x.dtype))


VECTOR_QUANTIZED = layout(Layout("vector_quantized", _shape, _describe, _reference))
