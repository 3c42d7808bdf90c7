"""AWQ: columns of large inputs are made larger before they are rounded, and grids are cut where that pays."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import BITS, Once, OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import by_input, centred, cost_of_codes, divided, relative
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.ops.packing import decode, encode, grid, grouped, pack
from eckart.statistics.needs import Need, Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.diagonal import Diagonal
from eckart.structures.quantized import Quantized, finite_matrix

GROUP = 64
POWERS = 20
"""Powers a = 0, 1/20, ..., 19/20 that are tried."""
NARROWEST = 10
"""Grids that are tried: of 1, 0.95, ..., 0.5 times the range of a group."""


@compressor(
    "awq",
    paper="Lin et al. 2023, arXiv 2306.00978",
    expression="Chain(Quantized, Diagonal)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_ABS_MEAN),
    size="bits",
)
def awq(weight: Tensor, statistics: Statistics, *, group: int = GROUP) -> Family:
    """Rounds W diag(s) and divides the inputs by s = E|x|^a, a the power of 20 that errs least; then cuts grids.

    `W ~ Q(W diag(s)) diag(1 / s)`, a on a grid of 20 between 0 and 1 (section 3.2, eq. 4 and 5), affine grids, one for
    64 inputs of a row (the paper has 128). Then each grid is narrowed to the share of its range, 1 to 0.5, of least
    output error over its own inputs, `d C_gg d` with d what a row of the group misses. Outputs are judged by C, not by
    a sample of the calibration text. The division stays in front of the matrix: what it is folded into, a norm or the
    rows of the matrix before, is nothing that a matrix knows.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C and `input_abs_mean` are read; errors are `||(W - What) C^1/2||_F^2`.
        group: inputs that share a scale.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight.
    """
    weight = finite_matrix(weight)
    moment, group = statistics.input_moment(weight), size_option("awq", "group", group)
    sizes = relative(by_input(statistics.get(Need.INPUT_ABS_MEAN), weight))
    exact = torch.promote_types(weight.dtype, torch.float32)
    prepared = Once(lambda: Metric.measured(right=moment.to(exact)))

    def cost(bits: int) -> Cost:
        return cost_of_codes(weight, bits, group, symmetric=False)

    def fit(bits: int) -> Chain:
        metric, w = prepared(), weight.to(exact)

        def scaled(power: float) -> tuple[float, Diagonal, Tensor]:
            inverse, scales = divided(centred(sizes**power), weight.dtype)
            larger = w * scales.to(exact)
            rounded = nearest(finite_matrix(larger), bits, weight.dtype, group).to(exact)
            missed = w - rounded * inverse.weight.detach().to(exact)
            return float(metric.error(missed)), inverse, larger

        _, inverse, larger = min((scaled(step / POWERS) for step in range(POWERS)), key=lambda tried: tried[0])
        by = inverse.weight.detach().double()
        return Chain(cut(larger, moment * by * by[:, None], bits, weight.dtype, group), inverse)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=moment), rounding)


def nearest(weight: Tensor, bits: int, dtype: torch.dtype, group: int) -> Tensor:
    """`Quantized.quantize(...).to_dense()` of a matrix (out, in), whose codes are not packed in between."""
    values = grouped(weight, min(group, weight.shape[1]))
    scales, zeros = grid(values, bits, dtype)
    assert zeros is not None
    at = scales[..., None], zeros[..., None]
    return decode(encode(values, *at, bits), *at, bits).flatten(-2)[:, : weight.shape[1]]


def cut(weight: Tensor, moment: Tensor, bits: int, dtype: torch.dtype, group: int) -> Quantized:
    """Rounds each group to the narrower grid, of `NARROWEST` and the whole one, of least error in its own inputs.

    Args:
        weight: (out, in), float32 or float64.
        moment: E[x x^T], (in, in), of which the blocks on the diagonal are read.
        bits: 2 to 8.
        dtype: of the scales.
        group: inputs that share a grid.
    """
    columns = weight.shape[1]
    group = min(group, columns)
    values = grouped(weight, group)
    blocks = _blocks(moment.to(weight.dtype), group)
    best: tuple[Tensor, Tensor, Tensor] | None = None
    least = torch.full(values.shape[:2], torch.inf, dtype=weight.dtype, device=weight.device)
    for step in range(NARROWEST + 1):
        scales, zeros = grid(values * (1 - step / 20), bits, dtype)
        assert zeros is not None
        at = scales[..., None].to(weight.dtype), zeros[..., None]
        codes = encode(values, *at, bits)
        missed = decode(codes, *at, bits) - values
        error = (torch.einsum("ogi,gij->ogj", missed, blocks) * missed).sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        found = codes, scales, zeros
        if best is None:
            best = found
        else:
            where = better[..., None], better, better
            best = tuple(map(torch.where, where, found, best))  # type: ignore[assignment]
    assert best is not None
    codes, scales, zeros = best
    packed = pack(codes.flatten(-2)[:, :columns].contiguous(), bits)
    return Quantized(packed, scales, zeros, bits=bits, group=group, columns=columns)


def _blocks(moment: Tensor, group: int) -> Tensor:
    """The blocks of `group` rows and columns on the diagonal, (groups, group, group), the last filled up with zeros."""
    columns = len(moment)
    count = -(-columns // group)
    padded = moment.new_zeros(count * group, count * group)
    padded[:columns, :columns] = moment
    return torch.stack([padded[s : s + group, s : s + group] for s in range(0, count * group, group)])
