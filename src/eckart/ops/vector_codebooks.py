"""Codebooks of short vectors: one code stands for the entries of one input in several rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.packing import grouped

ROUNDS = 15
"""Times that codes and vectors of a codebook are fitted in turn."""
REFITS = 2
"""Times that codes and scales are fitted in turn after that."""
SAMPLE = 1 << 15
"""Vectors that a codebook is fitted to."""
CHUNK = 1 << 11
"""Vectors whose distances to a codebook stay in the caches."""


def decode_vectors(codes: Tensor, scales: Tensor, codebook: Tensor, group: int) -> Tensor:
    """W[i, j] = s[i, j // group] c[q[i // d, j], i % d], (out, in), in the dtype of scales.

    Args:
        codes: q (ceil(out / d), in), uint8.
        scales: s (out, ceil(in / group)), floating point.
        codebook: c (k, d), k above every code.
        group: inputs that share a scale.
    """
    vectors, columns = codes.shape
    points = codebook.to(scales.dtype).index_select(0, codes.flatten().int()).view(vectors, columns, -1)
    rows = points.transpose(1, 2).reshape(-1, columns)[: len(scales)]
    return (grouped(rows, group) * scales[..., None]).flatten(1)[:, :columns]


def nearest_vectors(values: Tensor, scales: Tensor, codebook: Tensor) -> Tensor:
    """For each of n vectors w the code q of least `sum_i (w_i - s_i c[q, i])^2`, (n,), uint8.

    Args:
        values: w (n, d), floating point.
        scales: s (n, d), not negative.
        codebook: c (k, d), k <= 256.
    """
    both = torch.cat([codebook.square(), codebook], 1).T
    found = torch.empty(len(values), dtype=torch.uint8, device=values.device)
    for first in range(0, len(values), CHUNK):
        w, s = values[first : first + CHUNK], scales[first : first + CHUNK]
        unit = _nonzero(s.amax(1, keepdim=True))  # in whose terms no square overflows
        u = s / unit
        found[first : first + CHUNK] = (torch.cat([u.square(), u * (w / unit) * -2], 1) @ both).argmin(1)
    return found


def fitted_vectors(
    weight: Tensor, importance: Tensor, bits: int, length: int, group: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """A codebook c and scales s of a small `sum f_j (w_ij - s_ig c[q, i])^2`, q being the nearest codes.

    Weighted k-means from `normal_vectors` on, in units of the root mean squares of groups: vectors are
    `sum f s w / sum f s^2` over the entries of a code, in a sample of them. Then scales are `sum f w c / sum f c^2`
    over a group.

    Args:
        weight: w (out, in), finite, in float32 or float64.
        importance: f (in,), positive.
        bits: of a code.
        length: d, rows that share a code.
        group: inputs that share a scale.
        dtype: that both are rounded to.

    Returns:
        codebook (2^bits, d), its largest magnitude 1; scales (out, groups), not negative; both in `dtype`.
    """
    out, columns = weight.shape
    largest = _nonzero(weight.abs().amax())
    w = F.pad(weight / largest, (0, 0, 0, -out % length))
    values, f = grouped(w, group), grouped(importance, group)
    peak = _nonzero(values.abs().amax(-1))
    scales = peak * ((values / peak[..., None]).square() * f).sum(-1).div(f.sum(-1)).sqrt()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(w.numel() // length, generator=generator)[:SAMPLE].to(w.device)
    of_sample, unit = vectors_of(w, length)[drawn], vectors_of(_at_columns(scales, group, columns), length)[drawn]
    worth = importance.repeat(len(w) // length)[drawn, None] * unit
    codebook = normal_vectors(bits, length).to(w.device, w.dtype)
    for _ in range(ROUNDS):
        codes = nearest_vectors(of_sample, unit, codebook).int()
        over = torch.zeros_like(codebook).index_add_(0, codes, worth * of_sample)
        under = torch.zeros_like(codebook).index_add_(0, codes, worth * unit)
        codebook = torch.where(under > 0, over / _nonzero(under), codebook)
    size = _nonzero(codebook.abs().amax())
    codebook, scales = (codebook / size).to(dtype).to(w.dtype), scales * size
    for _ in range(REFITS):
        unit = vectors_of(_at_columns(scales, group, columns), length)
        codes = nearest_vectors(vectors_of(w, length), unit, codebook).view(-1, columns)
        points = grouped(decode_vectors(codes, torch.ones_like(scales), codebook, group), group)
        over, under = (f * values * points).sum(-1), (f * points.square()).sum(-1)
        scales = torch.where((over > 0) & (under > 0), over / _nonzero(under), scales)
    return codebook.to(dtype), (scales[:out] * largest).to(dtype)


def normal_vectors(bits: int, length: int) -> Tensor:
    """Points of a grid, (2^bits, d), float64, spread as the best are for normal vectors of variance 1.

    Those are as dense as a normal distribution of variance (d + 2) / d (Zador 1982, IEEE Trans. Inf. Theory 28.2); the
    grid has evenly spaced quantiles of that in each dimension.

    Args:
        bits: a multiple of d.
        length: d.
    """
    levels = 1 << bits // length
    middles = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    quantiles = torch.special.ndtri(middles) * ((length + 2) / length) ** 0.5
    return torch.cartesian_prod(*[quantiles] * length).view(-1, length)


def vectors_of(rows: Tensor, length: int) -> Tensor:
    """(out, columns) -> (out columns / d, d): entries of one input in d rows, a divisor of out."""
    return rows.view(-1, length, rows.shape[1]).transpose(1, 2).reshape(-1, length)


def _at_columns(scales: Tensor, group: int, columns: int) -> Tensor:
    return scales.repeat_interleave(group, 1)[:, :columns]


def _nonzero(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)
