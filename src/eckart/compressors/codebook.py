"""Few bits with levels of the matrix's own, where others share one grid for all matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eckart.compressors._one_by_one import Once, OneByOne, paying, rounding
from eckart.compressors.contract import Family, compressor
from eckart.compressors.gptq import ordered_factor
from eckart.linalg.optimal_brain_surgery import sweep
from eckart.metrics import Metric
from eckart.ops.codebooks import fitted_codebook
from eckart.ops.packing import fitted_scales, grouped, pack
from eckart.statistics.needs import Need, Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost

BITS = (2, 3, 4, 5)
GROUP = 64
PAPER = "eckart; Lloyd 1982, and weighted by what errors cost as in Kim et al. 2023, arXiv 2306.07629"


@compressor("codebook", paper=PAPER, expression="Quantized", size="bits")
def codebook(weight: Tensor, statistics: Statistics, *, group: int = GROUP) -> Family:
    """Rounds every weight to the nearest of 2^b levels fitted to the matrix, times one scale for 64 inputs of a row.

    `w ~ s c[q]`: levels c, scales s and codes q are fitted in turn to the least `sum (w - s c[q])^2`
    (`ops.codebooks.fitted_codebook`); c is stored once a matrix, in no more bytes than a few weights. No data is read.
    Kim et al. fit the levels of every row, without scales.

    Args:
        weight: (out, in).
        statistics: not read.
        group: inputs that share a scale.

    Raises:
        Refused: weight has NaN or Inf entries.
    """
    group = size_option("Quantized", "group", group)

    def fit(bits: int) -> Quantized:
        columns = weight.shape[1]
        levels, scales, codes = _fitted(weight, bits, min(group, columns), torch.ones(1, device=weight.device))
        packed = pack(codes.flatten(-2)[:, :columns], bits)
        return Quantized(packed, scales, None, levels, bits=bits, group=group, columns=columns)

    return _family(weight, group, Metric(), fit)


@compressor(
    "codebook-gptq",
    paper=PAPER,
    expression="Quantized",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="bits",
)
def codebook_gptq(weight: Tensor, statistics: Statistics, *, group: int = GROUP) -> Family:
    """The levels of `codebook`, fitted to what errors cost, and the columns not yet rounded make up for the others.

    Errors of column j count `1 / U[j, j]^2` times in the fit of levels and scales, which is what they cost once later
    columns have made up for them; the rounding is that of `gptq`, to the nearest level in the place of a grid.

    It is for 4 bits, where it diverges less than `gptq` in fewer bytes; at 3 and 2 bits `gptq` diverges less.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.
        group: inputs that share a scale.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    group = size_option("Quantized", "group", group)
    moment = statistics.input_moment(finite_matrix(weight))

    def prepare() -> tuple[Tensor, Tensor]:
        order, factor = ordered_factor(moment)
        return order, factor.to(torch.promote_types(weight.dtype, torch.float32))

    prepared = Once(prepare)

    def fit(bits: int) -> Quantized:
        return _swept(weight, *prepared(), bits, group)

    return _family(weight, group, Metric(right=moment), fit)


def _swept(weight: Tensor, order: Tensor, factor: Tensor, bits: int, group: int) -> Quantized:
    columns = weight.shape[1]
    group = min(group, columns)
    worth = (factor.diagonal().min() / factor.diagonal()).square()
    importance = grouped(torch.empty_like(worth).index_copy_(0, order, worth), group)
    levels, scales, _ = _fitted(weight, bits, group, importance)
    points = levels.to(factor.dtype)
    middles = (points[1:] + points[:-1]) / 2
    scale = scales.T.to(factor.dtype)[order // group].contiguous()
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
    rest = weight.detach().T.to(factor.dtype)[order].contiguous()
    codes = torch.empty(rest.shape, dtype=torch.uint8, device=rest.device)
    pivots = factor.diagonal().tolist()

    def round_to_level(j: int, error: Tensor) -> None:
        found = torch.bucketize(rest[j] / divisor[j], middles)
        codes[j] = found
        torch.mul(points[found], scale[j], out=error)
        torch.sub(rest[j], error, out=error).div_(pivots[j])

    sweep(rest, factor, round_to_level)
    natural = torch.empty_like(codes).index_copy_(0, order, codes).T.contiguous()
    return Quantized(pack(natural, bits), scales, None, levels, bits=bits, group=group, columns=columns)


def _fitted(weight: Tensor, bits: int, group: int, importance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels (2^bits,), scales (out, groups), both in the dtype of the weight, and codes (out, groups, group)."""
    groups = grouped(weight.detach().to(torch.promote_types(weight.dtype, torch.float32)), group)
    levels = fitted_codebook(groups, bits, weight.dtype, importance)
    return levels, *fitted_scales(groups, bits, weight.dtype, levels, importance)


def _family(weight: Tensor, group: int, metric: Metric, fit: Callable[[int], Quantized]) -> OneByOne:
    weight = finite_matrix(weight)

    def cost(bits: int) -> Cost:
        return quantized_cost(weight.shape, bits, group, weight.dtype, levels=1 << bits)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, metric, rounding)
