"""GPTQ: every column is rounded in turn, and the columns not yet rounded make up for its error."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import bits_family
from eckart.compressors._shared_inputs import exact_dtype, input_metric, input_side, made_of
from eckart.compressors.contract import Family, compressor
from eckart.linalg.optimal_brain_surgery import DAMPING, inverse_factor, sweep
from eckart.ops.packing import grouped, pack, searched_grid
from eckart.statistics.needs import Need, Statistics
from eckart.structures._checks import size_option
from eckart.structures.quantized import Quantized, finite_matrix

GROUP = 64


@compressor(
    "gptq",
    paper="Frantar 2022, arXiv 2210.17323",
    expression="Quantized",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="bits",
)
def gptq(weight: Tensor, statistics: Statistics, *, group: int = GROUP, symmetric: bool = False) -> Family:
    """Rounds column after column to an affine grid and lets the remaining columns make up for the error.

    On the same grid and order the authors' code, in float32, agrees to 5e-4. Its own defaults, columns as they come and
    grids from the smallest to the largest weight, are 11 to 99 % worse at 3 bits; with its ordering and its search of
    grids, which does not know what an error in a column costs, it is between 0.1 % better and 13 % worse
    (`benchmarks/peers/authors.py`).

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.
        group: inputs that share a scale.
        symmetric: zero-point fixed at the middle code instead of stored.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    metric, dtype = input_metric(finite_matrix(weight), statistics), exact_dtype(weight)
    moment = input_side(metric)

    def fit(bits: int) -> Quantized:
        return _quantize(weight, *shared_factor(moment, dtype), bits, group, symmetric)

    return bits_family(weight, fit, metric, group, symmetric)


def gptq_quantize(
    weight: Tensor,
    second_moment: Tensor,
    bits: int,
    group: int = GROUP,
    *,
    symmetric: bool = False,
    damping: float = DAMPING,
) -> Quantized:
    """Quantizes W to a small `||(W - What) C^1/2||_F` by optimal brain surgery in a fixed order of columns.

    Column j is rounded to its grid, which `linalg.surgeon.sweep` has the columns behind it make up for (section 3.3,
    algorithm 1). Inputs of large second moment come first, while there are many others left to make up for their
    error. Groups stay runs of consecutive inputs, so this order visits them in turns; their grids are therefore chosen
    beforehand, each as the one that rounds its original weights best (`packing.searched_grid`), an error in column j
    counting `1 / U[j, j]^2` times, which is what it costs once later columns have made up for it. An input that is
    always zero changes no other and is rounded to nearest.

    Args:
        weight: (out, in), floating point; scales take its dtype.
        second_moment: C = E[x x^T], (in, in), symmetric positive semi-definite, singular or zero if need be.
        bits: 2 to 8.
        group: inputs that share a scale; `in` or more for one scale a row.
        symmetric: zero-point fixed at the middle code instead of stored.
        damping: what is added to the diagonal, relative to its mean.

    Raises:
        Refused: weight or C is not finite, C does not fit W or is not positive semi-definite.
    """
    moment = Statistics(input_second_moment=second_moment).input_moment(finite_matrix(weight))
    return _quantize(weight, *ordered_factor(moment, damping), bits, group, symmetric)


def _quantize(weight: Tensor, order: Tensor, factor: Tensor, bits: int, group: int, symmetric: bool) -> Quantized:
    columns = weight.shape[1]
    group = min(size_option("gptq", "group", group), columns)
    w = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    factor = factor.to(w.dtype)
    worth = factor.diagonal().min() / factor.diagonal()
    importance = grouped(torch.empty_like(worth).index_copy_(0, order, worth.square()), group)
    scales, zeros = searched_grid(grouped(w, group), bits, weight.dtype, symmetric, importance)
    scale = scales.T.to(w.dtype)[order // group].contiguous()
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
    middle = torch.full_like(scales.T, 1 << (bits - 1)) if zeros is None else zeros.T
    zero = middle.to(w.dtype)[order // group].contiguous()
    rest = w.T[order].contiguous()
    levels, top, pivots = torch.empty_like(rest), (1 << bits) - 1, factor.diagonal().tolist()

    def round_to_grid(j: int, error: Tensor) -> None:
        torch.div(rest[j], divisor[j], out=levels[j]).add_(zero[j]).round_().clamp_(0, top)
        torch.sub(levels[j], zero[j], out=error).mul_(scale[j])
        torch.sub(rest[j], error, out=error).div_(pivots[j])

    sweep(rest, factor, round_to_grid)
    codes = levels.to(torch.uint8)
    natural = torch.empty_like(codes).index_copy_(0, order, codes).T.contiguous()
    return Quantized(pack(natural, bits), scales, zeros, bits=bits, group=group, columns=columns)


def shared_factor(moment: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`ordered_factor` of the second moment of an input, in that dtype, once for all matrices that have it."""

    def make() -> tuple[Tensor, Tensor]:
        order, factor = ordered_factor(moment)
        return order, factor.to(dtype)

    return made_of(moment, ("gptq", dtype), make)


def ordered_factor(second_moment: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """The columns in the order they are rounded, (in,), and `inverse_factor` of the second moment in that order."""
    order = rounding_order(second_moment)
    return order, inverse_factor(second_moment[order][:, order], damping)


def rounding_order(second_moment: Tensor) -> Tensor:
    """The columns from the largest second moment to the least, (in,)."""
    return second_moment.diagonal().argsort(descending=True, stable=True)
