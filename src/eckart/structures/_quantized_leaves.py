"""Whether the tensors of a `Quantized` fit each other."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.ops.packing import CODE_BITS, row_bytes
from eckart.structures._checks import size_option


def check_bits(bits: int) -> None:
    """Raises Refused for bits that no code has."""
    if size_option("Quantized", "bits", bits) not in CODE_BITS:
        raise Refused(f"Quantized: bits must be 2 to 8, got {bits}")


def check_leaves(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    codebook: Tensor | None,
    packed_zeros: Tensor | None,
    sizes: tuple[int, int, int],
) -> tuple[int, int]:
    """Group, no longer than a row, and columns of a `Quantized` of these leaves.

    Args:
        codes, scales, zeros, codebook, packed_zeros: see `Quantized`.
        sizes: bits, group and columns, as they were said.

    Raises:
        Refused: shapes or dtypes that do not fit each other.
    """
    bits, group, columns = sizes
    check_bits(bits)
    columns = size_option("Quantized", "columns", columns)
    group = min(size_option("Quantized", "group", group), columns)
    if codes.ndim != 2 or codes.dtype != torch.uint8 or codes.shape[1] != row_bytes(columns, bits):
        raise Refused(
            f"Quantized needs uint8 codes of shape (out, {row_bytes(columns, bits)}) for {columns} columns of "
            f"{bits} bits, got {codes.dtype} of shape {tuple(codes.shape)}; pack them with packing.pack"
        )
    rows, groups = codes.shape[0], -(-columns // group)
    if tuple(scales.shape) != (rows, groups) or not scales.is_floating_point():
        raise Refused(
            f"Quantized needs floating-point scales of shape {(rows, groups)}, got {scales.dtype} {tuple(scales.shape)}"
        )
    for name, given, width in (("zeros", zeros, groups), ("packed zeros", packed_zeros, row_bytes(groups, bits))):
        if given is not None and (tuple(given.shape) != (rows, width) or given.dtype != torch.uint8):
            raise Refused(
                f"Quantized needs uint8 {name} of shape {(rows, width)}, got {given.dtype} {tuple(given.shape)}"
            )
    offsets = [given for given in (zeros, packed_zeros, codebook) if given is not None]
    if len(offsets) > 1:
        raise Refused("Quantized takes zeros or a codebook, not both, and zeros packed or not")
    if codebook is not None and (
        codebook.ndim != 1 or not codebook.is_floating_point() or not 2 <= len(codebook) <= 1 << bits
    ):
        raise Refused(
            f"Quantized needs a floating-point codebook of 2 to {1 << bits} levels for {bits} bits, got "
            f"{codebook.dtype} of shape {tuple(codebook.shape)}"
        )
    return group, columns
