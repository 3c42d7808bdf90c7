"""What the errors of candidates will be about, in the metric of `kfac`, before any of them is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from eckart.compressors._masks import share
from eckart.compressors.gptq import rounding_order
from eckart.linalg.optimal_brain_surgery import upper_factor
from eckart.ops.packing import decode, encode, grid, grouped, searched_grid

ROWS = 64
"""Of so many rows of a matrix, about, it is seen what is cut off."""
GROUPS = 64
"""Groups of normal weights in which it is seen what the search of a grid saves."""


def conditional_variances(second_moment: Tensor) -> Tensor:
    """V_j = 1 / U_jj^2, (in,), float64: what an error in a column costs when those behind it make up for it.

    It is the variance of an input given those of less second moment, the order in which `gptq` rounds columns.

    Args:
        second_moment: C = E[x x^T], (in, in), damped as in `gptq`.

    Raises:
        Refused: C is not finite, or not positive semi-definite.
    """
    order = rounding_order(second_moment)
    pivots = upper_factor(second_moment[order][:, order]).diagonal().square()
    return torch.empty_like(pivots).index_copy_(0, order, pivots)


def rounded(weight: Tensor, left: Tensor, variances: Tensor, sizes: Sequence[int], group: int) -> dict[int, float]:
    """Errors of `gptq`, by bits: `sum_ij L_ii D_ij^2 / 12 V_j`, each entry's being uniform in a step D of its grid.

    Args:
        weight: W (out, in).
        left: the diagonal of L (out,), float64.
        variances: V (in,).
        sizes: bits.
        group: inputs that share a grid.
    """
    groups = grouped(weight.detach(), group)
    span = (groups.amax(-1).clamp_min(0) - groups.amin(-1).clamp_max(0)).double()
    level = float(left @ (span.square() @ pad(variances, (0, -len(variances) % group)).view(-1, group).sum(1))) / 12
    return {bits: level * narrowed(bits, group) / (2**bits - 1) ** 2 for bits in sizes}


@cache
def narrowed(bits: int, group: int) -> float:
    """The squared error of `searched_grid`, of normal weights, over a uniform one in a step of the widest grid."""
    values = torch.randn(GROUPS, group, generator=torch.Generator().manual_seed(0))
    step, (scales, zeros) = grid(values, bits, torch.float32)[0], searched_grid(values, bits, torch.float32)
    assert zeros is not None
    found = decode(encode(values, scales[:, None], zeros[:, None], bits), scales[:, None], zeros[:, None], bits)
    return float((found - values).square().sum() / (step.square().sum() * group / 12))


def cut_off(
    weight: Tensor, left: Tensor, score: Tensor, worth: Tensor, sizes: Sequence[int], by_row: bool
) -> dict[int, float]:
    """Errors of pruning, by percent kept: `sum_ij L_ii w_ij^2 worth_j` of the entries with the least w_ij^2 score_j.

    Args:
        weight: W (out, in).
        left: the diagonal of L (out,), float64.
        score, worth: (in,), float64.
        sizes: percent.
        by_row: whether entries are compared with those of their row only, and not with all.
    """
    squares = weight.detach().double().square()
    some = slice(None, None, max(1, len(weight) // ROWS))
    rank, costs = (squares[some] * score).float(), left[some, None] * (squares[some] * worth)
    rank, costs = (rank, costs) if by_row else (rank.reshape(1, -1), costs.reshape(1, -1))
    least = costs.gather(1, rank.argsort(1)).sum(0).cumsum(0)
    total, seen = float(left @ (squares @ worth)), float(least[-1])
    factor, count = total / seen if seen > 0 else 0.0, len(least)
    return {percent: factor * float(least[count - share(percent, count) - 1]) for percent in sizes}
