"""Codebooks of a matrix's own: the levels that its entries, in units of their scales, gather around."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.ops.packing import encode, grid, normal_float

ROUNDS = 12
"""Times that scales, codes and levels are fitted in turn."""
SAMPLE = 1 << 17
"""Entries that the levels are fitted to; more of them move no level."""
NEAR_ZERO = 2.0**-7
"""The least magnitude of the outer levels, relative to the largest: one is negative, one positive."""


def fitted_codebook(values: Tensor, bits: int, dtype: torch.dtype, importance: Tensor) -> Tensor:
    """Levels c of least error `sum f (w - s c[q])^2`, s being one scale a group and q the nearest level.

    Lloyd's iteration from the NormalFloat levels: scales are `sum f w c / sum f c^2` over a group, codes the nearest
    levels, levels `sum f s w / sum f s^2` over the entries of a code. Of a large matrix a share of the rows is read.

    Args:
        values: w (rows, groups, k), finite.
        bits: 2 to 8.
        dtype: that the levels are rounded to.
        importance: f, not negative, broadcast against one row: (groups, k) or (1,).

    Returns:
        (2^bits,) in `dtype`, ascending, the largest magnitude 1; the first is negative and the last positive.
    """
    exact = torch.promote_types(dtype, torch.float32)
    w = values[:: max(1, values.numel() // SAMPLE)].to(exact)
    f = importance.to(exact)
    levels = normal_float(bits).to(w.device, exact)
    scales = grid(w, bits, exact, codebook=levels)[0]
    for _ in range(ROUNDS):
        points = levels[encode(w, scales[..., None], None, bits, levels).long()]
        over, under = (f * w * points).sum(-1), (f * points.square()).sum(-1)
        scales = torch.where((over > 0) & (under > 0), over / under, scales)
        codes = encode(w, scales[..., None], None, bits, levels).flatten().long()
        unit = scales[..., None]
        over = torch.bincount(codes, (f * unit * w).double().flatten(), minlength=len(levels))
        under = torch.bincount(codes, (f * unit.square()).expand_as(w).double().flatten(), minlength=len(levels))
        levels = torch.where(under > 0, over / under, levels.double()).sort().values
        levels[0].clamp_max_(-NEAR_ZERO)
        levels[-1].clamp_min_(NEAR_ZERO)
        largest = levels.abs().max()
        levels, scales = (levels / largest).to(exact), scales * largest.to(exact)
    return levels.to(dtype)
