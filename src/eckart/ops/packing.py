"""Integer codes of 1 to 8 bits, packed into bytes without waste, and the grids they are points of."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.errors import Refused

CODE_BITS = range(2, 9)
"""Bits of a code that is a point of a grid."""
REFITS = 3
"""Times that scales are fitted to the codes, and the codes to the scales."""


def row_bytes(columns: int, bits: int) -> int:
    """Bytes of one packed row: `ceil(columns * bits / 8)` and, for bits 3, 5, 6, 7, at most `bits - 1` bytes more.

    There is no padding where `columns` is a multiple of 8, nor for bits 1, 2, 4 and 8.

    >>> row_bytes(64, 3), row_bytes(64, 4), row_bytes(65, 4), row_bytes(65, 3)
    (24, 32, 33, 27)
    """
    slabs, unit = _period(bits)
    return -(-columns // slabs) * unit


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs codes; `unpack` reverses it.

    A row is cut into `slabs` equal runs of columns (the last one padded with zeros); the i-th codes of all runs make
    one little-endian word of `slabs * bits` bits, and byte k of all words is stored as one run of bytes. Every step
    of unpacking therefore reads and writes whole runs.

    Args:
        codes: (..., columns), uint8, each below 2^bits.
        bits: 1 to 8.

    Returns:
        (..., row_bytes(columns, bits)), uint8.
    """
    slabs, unit = _period(bits)
    padded = pad_columns(codes, slabs)
    words = padded.reshape(*codes.shape[:-1], slabs, padded.shape[-1] // slabs)
    packed = words.new_zeros(*words.shape[:-2], unit, words.shape[-1])
    for slab in range(slabs):
        byte, shift = divmod(slab * bits, 8)
        packed[..., byte, :] |= words[..., slab, :] << shift
        if shift + bits > 8:
            packed[..., byte + 1, :] |= words[..., slab, :] >> (8 - shift)
    return packed.flatten(-2)


def unpack(packed: Tensor, bits: int, columns: int) -> Tensor:
    """The codes (..., columns), uint8, of rows packed by `pack`: packed (..., row_bytes(columns, bits)), uint8."""
    if bits == 8:
        return packed
    slabs, unit = _period(bits)
    words = packed.reshape(*packed.shape[:-1], unit, packed.shape[-1] // unit)
    codes = words.new_empty(*words.shape[:-2], slabs, words.shape[-1])
    compiled = torch.compiler.is_compiling()  # which takes no slice as `out`
    for slab in range(slabs):
        byte, shift = divmod(slab * bits, 8)
        code = codes[..., slab, :]
        if compiled:
            code.copy_(words[..., byte, :] >> shift)
        else:
            torch.bitwise_right_shift(words[..., byte, :], shift, out=code)
        if shift + bits > 8:
            code |= words[..., byte + 1, :] << (8 - shift)
    codes &= (1 << bits) - 1
    return codes.flatten(-2)[..., :columns]


def bits_set(packed: Tensor) -> Tensor:
    """How many bits each row has: (rows, bytes), uint8 -> (rows,), int64; sums of 2, 4 and 8 bits within each byte."""
    pairs = packed - ((packed >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return ((fours + (fours >> 4)) & 0x0F).sum(1)


def pad_columns(rows: Tensor, multiple: int) -> Tensor:
    """`rows` (..., columns) with zeros behind, up to the next multiple of `multiple`; itself where none are needed."""
    missing = -rows.shape[-1] % multiple
    return F.pad(rows, (0, missing)) if missing else rows


def grouped(rows: Tensor, group: int) -> Tensor:
    """`rows` (..., columns) as (..., groups, group), a short last group filled up with zeros."""
    padded = pad_columns(rows, group)
    return padded.reshape(*rows.shape[:-1], padded.shape[-1] // group, group)


def _period(bits: int) -> tuple[int, int]:
    """The least number of codes that fill whole bytes, and those bytes."""
    if bits not in range(1, 9):
        raise Refused(f"packed codes have 1 to 8 bits, got bits={bits!r}")
    common = gcd(bits, 8)
    return 8 // common, bits // common


def grid(
    values: Tensor, bits: int, dtype: torch.dtype, symmetric: bool = False, codebook: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Scales, and zero-points where the grid is affine, of the smallest grid that covers each group and zero.

    Affine: `w = s (q - z)` with `s = (max - min) / (2^bits - 1)`, `z = round(-min / s)`. Symmetric: z = 2^(bits-1) and
    nothing is stored for it. Codebook: `w = s codebook[q]`.

    Args:
        values: (..., k), one group a row.
        bits: 2 to 8.
        dtype: of the scales; they are rounded to it before anything is computed with them.
        symmetric: whether the zero-point is fixed.
        codebook: (levels,), ascending, with a positive and a negative level.

    Returns:
        scales (...,) in `dtype`, 0 for a group of zeros; zeros (...,) in uint8 or None.
    """
    return _covering(*_ends(values), bits, dtype, symmetric, codebook)


def _ends(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest of each group (..., k), or zero."""
    return values.amin(-1).clamp_max(0), values.amax(-1).clamp_min(0)


def _covering(
    low: Tensor, high: Tensor, bits: int, dtype: torch.dtype, symmetric: bool, codebook: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """`grid` of groups that lie between `low` and `high`, (...,) both."""
    low, high = low.double(), high.double()
    if codebook is not None:
        least, greatest = codebook[0].double(), codebook[-1].double()
        return torch.maximum(high / greatest, low / least).to(dtype), None
    half = 1 << (bits - 1)
    if symmetric:
        return torch.maximum(high / (half - 1), -low / half).to(dtype), None
    top = (1 << bits) - 1
    scales = ((high - low) / top).to(dtype)
    return scales, (-low / _nonzero(scales.double())).round().clamp(0, top).to(torch.uint8)


def searched_grid(
    values: Tensor,
    bits: int,
    dtype: torch.dtype,
    symmetric: bool = False,
    importance: Tensor | None = None,
    power: float = 2.4,
) -> tuple[Tensor, Tensor | None]:
    """The grid of least rounding error among those of `grid` for each group times 1, 0.975, ..., 0.5.

    A narrower grid cuts the largest weights off and rounds the others better; the fewer the bits, the more it pays. The
    error is the sum of |w - what|^2.4, the power of the authors' GPTQ code: weights that have made up for the rounding
    of others spread wider than those the grid is chosen for, which squares do not allow for.

    Args:
        values: as for `grid`, like bits, dtype and symmetric.
        importance: what the errors of `values` are multiplied by, broadcast against them; None for ones.
        power: of the error; 2 where no weight makes up for another.

    Returns:
        As `grid`.
    """
    low, high = _ends(values)
    scales, zeros = _covering(low, high, bits, dtype, symmetric)
    unit = _nonzero(scales)[..., None].to(values.dtype)

    def error(scales: Tensor, zeros: Tensor | None) -> Tensor:
        scale, zero = scales[..., None].to(values.dtype), None if zeros is None else zeros[..., None]
        # In units of the widest grid, so that no power overflows.
        levels = _levels_at(values, scale, zero, bits)
        levels -= 1 << (bits - 1) if zero is None else zero
        missed = levels.mul_(scale).sub_(values).div_(unit).abs_().pow_(power)
        return (missed if importance is None else missed.mul_(importance)).sum(-1)

    least = error(scales, zeros)
    for step in range(1, 21):
        share = 1 - step / 40
        narrow, shift = _covering(low * share, high * share, bits, dtype, symmetric)
        found = error(narrow, shift)
        better = found < least
        least = torch.where(better, found, least)
        scales = torch.where(better, narrow, scales)
        if zeros is not None and shift is not None:
            zeros = torch.where(better, shift, zeros)
    return scales, zeros


def fitted_scales(
    values: Tensor,
    bits: int,
    dtype: torch.dtype,
    codebook: Tensor,
    importance: Tensor,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Scales that are least squares of their groups, not largest magnitudes, and the codes nearest to `values`.

    From the scales of `grid` on, `s = sum f w q / sum f q^2` over a group and the codes nearest to w / s take turns;
    from those of values that were nearly the same, one turn.

    Args:
        values: w (..., k), one group a row.
        bits: of a code.
        dtype: of the scales.
        codebook: (2^bits,), ascending, with a positive and a negative level.
        importance: f, weights of the squared error, not negative, broadcast against values.
        start: scales (...,) of values that were nearly the same; None for those of `grid`.

    Returns:
        scales (...,) in `dtype`; codes (..., k), uint8.
    """
    exact = torch.promote_types(dtype, torch.float32)
    book = codebook.to(dtype).to(exact)
    scales = grid(values, bits, dtype, codebook=codebook.to(dtype))[0] if start is None else start
    w = values.to(exact)
    codes = encode(w, scales[..., None], None, bits, book)
    for _ in range(REFITS if start is None else 1):
        levels = _levels(book, codes)
        weighed = importance * levels
        over, under = (weighed * w).sum(-1), (weighed * levels).sum(-1)
        scales = torch.where((over > 0) & (under > 0), over / under, scales.to(exact)).to(dtype)
        codes = encode(w, scales[..., None], None, bits, book)
    return scales, codes


def encode(values: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, codebook: Tensor | None = None) -> Tensor:
    """Codes (uint8) of the grid points nearest to `values`; scales and zeros broadcast against values."""
    if codebook is not None:
        return _nearest(values / _nonzero(scales.to(values.dtype)), codebook.to(values.dtype))
    return _levels_at(values, scales.to(values.dtype), zeros, bits).to(torch.uint8)


def _levels_at(values: Tensor, scales: Tensor, zeros: Tensor | None, bits: int) -> Tensor:
    """Codes of an affine grid, in the dtype of the values and of the scales."""
    zero = 1 << (bits - 1) if zeros is None else zeros.to(values.dtype)
    return (values / _nonzero(scales)).add_(zero).round_().clamp_(0, (1 << bits) - 1)


def decode(codes: Tensor, scales: Tensor, zeros: Tensor | None, bits: int, codebook: Tensor | None = None) -> Tensor:
    """Grid points, in the dtype of scales, of codes (uint8); scales and zeros broadcast against codes."""
    if codebook is not None:
        return _levels(codebook.to(scales.dtype), codes) * scales
    levels = codes.to(scales.dtype)
    levels -= 1 << (bits - 1) if zeros is None else zeros.to(scales.dtype)
    if torch.is_grad_enabled() and scales.requires_grad:
        return levels * scales
    return levels.mul_(scales)


def _nearest(values: Tensor, codebook: Tensor) -> Tensor:
    """Codes (uint8) of the levels nearest to `values`, the lower one in the middle between two.

    A binary search that does not branch: branches that no processor can predict take `torch.bucketize` three times as
    long.
    """
    flat, middles = values.flatten(), (codebook[1:] + codebook[:-1]) / 2
    bits = len(middles).bit_length()
    middles = F.pad(middles, (0, (1 << bits) - 1 - len(middles)), value=torch.inf)
    half = 1 << (bits - 1)
    found = torch.zeros(flat.shape, dtype=torch.int32, device=flat.device).add_(flat > middles[half - 1], alpha=half)
    while half := half // 2:
        found.add_(flat > middles[half - 1 :].index_select(0, found), alpha=half)
    return found.to(torch.uint8).view(values.shape)


def _levels(codebook: Tensor, codes: Tensor) -> Tensor:
    """codebook[codes], for codes in uint8."""
    return codebook.index_select(0, codes.flatten().int()).view(codes.shape)


def normal_float(bits: int = 4) -> Tensor:
    """The levels of the NormalFloat code, (2^bits,), float64, ascending from -1 to 1 with an exact zero.

    Quantiles of the standard normal distribution: 2^(bits-1) positive ones and one fewer negative one, evenly spaced
    in probability between 1/2 and 1 - d, `d = (1 / 32 + 1 / 30) / 2`; divided by the greatest (Dettmers 2023, arXiv
    2305.14314, section 3 and appendix E, for 4 bits; Guo 2023, arXiv 2311.12023, keeps d for other numbers of bits).
    """
    if bits not in CODE_BITS:
        raise Refused(f"codes have 2 to 8 bits, got bits={bits!r}")
    levels = 1 << bits
    end = 1 - (1 / 32 + 1 / 30) / 2

    def quantiles(count: int) -> Tensor:
        upper: Tensor = torch.special.ndtri(torch.linspace(end, 0.5, count + 1, dtype=torch.float64)[:-1])
        return upper

    positive, negative = quantiles(levels // 2), quantiles(levels // 2 - 1)
    ascending: Tensor = torch.cat([-negative, positive.new_zeros(1), positive.flip(0)])
    return ascending / positive[0]


def _nonzero(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, torch.ones_like(scales), scales)
