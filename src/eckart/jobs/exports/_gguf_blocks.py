"""Numbers of a matrix in the types of GGUF: integers with scales as they are where a type has them, else floats.

A block holds 32 inputs of a row and one scale d in 16 bits. With q the code, by type:

    Q4_0, Q5_0   W = d (q - 8), W = d (q - 16)
    Q4_1, Q5_1   W = d q + m, with m in 16 bits
    Q8_0         W = d q, q a signed byte
    IQ4_NL       W = d LEVELS[q]
"""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.structures import Quantized

BLOCK = 32
LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The numbers of IQ4_NL."""
ROUNDING = 2.0**-11
"""Relative error of a number of 16 bits that is neither too large nor too small for them."""


def in_blocks(matrix: Quantized) -> tuple[str, Tensor] | None:
    """The smallest type that has the codes of a matrix, and its rows of bytes (out, bytes), uint8.

    None where no type has: the groups are no multiples of 32 inputs, the levels are others, or a scale is too large or
    too small for 16 bits.
    """
    if matrix.columns % BLOCK or (matrix.group < matrix.columns and matrix.group % BLOCK):
        return None
    codes = matrix.unpacked().int().view(len(matrix.codes), -1, BLOCK)
    place = torch.arange(codes.shape[1]) * BLOCK // matrix.group
    scales = matrix.scales.detach().double()[:, place]
    if matrix.codebook is not None:
        step = _step(matrix.codebook.detach().double())
        return None if step is None else _stored("IQ4_NL", [scales * step], codes)
    middle = 1 << (matrix.bits - 1)
    zeros = torch.full_like(codes[..., :1], middle) if matrix.zeros is None else matrix.zeros.int()[:, place, None]
    signed = codes - zeros

    def within(half: int) -> bool:
        return bool(((signed >= -half) & (signed < half)).all())

    if within(8):
        return _stored("Q4_0", [scales], signed + 8)
    if matrix.bits <= 4:
        return _stored("Q4_1", [scales, -scales * zeros[..., 0]], codes)
    if within(16):
        return _stored("Q5_0", [scales], signed + 16)
    if matrix.bits == 5:
        return _stored("Q5_1", [scales, -scales * zeros[..., 0]], codes)
    return _stored("Q8_0", [scales], signed) if within(128) else None


def in_floats(weight: Tensor, dtype: torch.dtype) -> tuple[str, Tensor]:
    """A matrix (out, in) as bytes of 16 bits a number, those of `dtype` where it has 16; of 32 where 16 lose a row."""
    if dtype == torch.bfloat16:
        return "BF16", weight.to(dtype).contiguous().view(torch.uint8)
    half = weight.to(torch.float16)
    lost = (half.double() - weight.double()).abs().amax(1)
    if bool((lost <= 2 * ROUNDING * weight.double().abs().amax(1)).all()):
        return "F16", half.contiguous().view(torch.uint8)
    return "F32", weight.float().contiguous().view(torch.uint8)


def _stored(name: str, scales: list[Tensor], codes: Tensor) -> tuple[str, Tensor] | None:
    """The bytes of blocks: scales (out, blocks) in 16 bits, then codes (out, blocks, 32); None if 16 are too few."""
    halves = [each.to(torch.float16) for each in scales]
    for half, each in zip(halves, scales, strict=True):
        if not bool(((half.double() - each).abs() <= ROUNDING * each.abs()).all()):
            return None
    parts = [half[..., None].view(torch.uint8) for half in halves]
    if name == "Q8_0":
        parts.append(codes.to(torch.int8).view(torch.uint8))
    else:
        if name.startswith("Q5"):
            bits = (codes >> 4).view(*codes.shape[:2], BLOCK // 8, 8) << torch.arange(8)
            parts.append(bits.sum(-1).to(torch.uint8))
        low = (codes & 15).to(torch.uint8)
        parts.append(low[..., : BLOCK // 2] | low[..., BLOCK // 2 :] << 4)
    return name, torch.cat(parts, -1).flatten(1)


def _step(codebook: Tensor) -> float | None:
    """t where the levels are t LEVELS, to the rounding of the codebook; None where they are others."""
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    if len(codebook) != len(levels):
        return None
    step = float(codebook[-1] / levels[-1])
    return step if bool(((codebook - step * levels).abs() <= ROUNDING * codebook.abs()).all()) else None
