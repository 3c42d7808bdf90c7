"""GQSA: groups of 16 inputs of a row are dropped, and the others rounded to 4 bits with a scale each."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._groups import SortedInputs, cost_of, stored_groups
from eckart.compressors._masks import PERCENT
from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._shared_inputs import input_metric, input_side
from eckart.compressors.contract import compressor
from eckart.linalg.optimal_brain_surgery import inverse_factor, sweep
from eckart.ops.packing import grouped, searched_grid
from eckart.statistics.needs import Need, Statistics
from eckart.structures._kept_groups import GROUP
from eckart.structures.compose import Chain
from eckart.structures.group_sparse_codes import GroupSparseCodes
from eckart.structures.quantized import finite_matrix

BITS = 4
MIDDLE = 1 << (BITS - 1)


@compressor(
    "gqsa",
    paper="Zeng et al. 2024, arXiv 2412.17560",
    expression="Chain(GroupSparseCodes, Permutation)",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="percent",
)
def gqsa(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps groups of 16 inputs of a row, and of those 4 bits a weight and a scale.

    The groups are those of `group-sparse`, with its order of inputs and its surgery, where the paper takes the mean of
    `w^2 / [H^-1]_jj^2` over each and drops the same number in every row. The rounding is that of GPTQ among what is
    kept, on symmetric grids, in which a group has no zero-point to store: it costs more bytes than it saves error. The
    paper's two stages of training, of a block and of all scales, are left to `--heal`, which trains the scales block by
    block: codes stay as they are.

    Weights that lie on a grid already, as those of smollm2 do, leave it when their inputs are sorted.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    weight = finite_matrix(weight)
    metric = input_metric(weight, statistics)

    def fit(percent: int) -> Chain:
        inputs = SortedInputs.of(weight, input_side(metric))
        kept, factor = inputs.kept(percent), inverse_factor(inputs.moment).to(inputs.weight.dtype)
        return inputs.chain(rounded(inputs.pruned(kept), kept, factor, weight.dtype))

    cost = cost_of(weight, lambda kept: GroupSparseCodes.empty(weight.shape, kept, BITS, weight.dtype))
    sizes = paying(weight, [p for p in (*PERCENT, 100) if stored_groups(weight, p)], cost)
    return OneByOne(weight, sizes, cost, fit, metric, _expected)


def rounded(pruned: Tensor, kept: Tensor, factor: Tensor, dtype: torch.dtype) -> GroupSparseCodes:
    """The kept groups of a matrix as codes, rounded column after column, later ones making up for the error.

    A column that a row drops passes on what it was given to make up for, so the groups that are dropped stay zero.

    Args:
        pruned: (out, in), zero where it is dropped.
        kept: (out, groups), bool.
        factor: `inverse_factor` of the second moment (in, in), in the dtype of `pruned`.
        dtype: of the scales.
    """
    columns = pruned.shape[1]
    pivots = factor.diagonal()
    importance = grouped((pivots.min() / pivots).square(), GROUP)
    scales, _ = searched_grid(grouped(pruned, GROUP), BITS, dtype, True, importance)
    exact = scales.T.to(pruned.dtype)
    divisor = torch.where(exact == 0, torch.ones_like(exact), exact)
    step = exact * kept.T
    rest = pruned.T.clone(memory_format=torch.contiguous_format)
    levels, each = torch.empty_like(rest), pivots.tolist()

    def round_to_grid(j: int, error: Tensor) -> None:
        torch.div(rest[j], divisor[j // GROUP], out=levels[j]).round_().clamp_(-MIDDLE, MIDDLE - 1)
        torch.mul(levels[j], step[j // GROUP], out=error)
        torch.sub(rest[j], error, out=error).div_(each[j])

    sweep(rest, factor, round_to_grid)
    codes = grouped(levels.T.add(MIDDLE).to(torch.uint8), GROUP)[kept]
    return GroupSparseCodes.of_codes(codes, scales[kept], kept, bits=BITS, size=columns)


def _expected(percent: int) -> float:
    return (1 - percent / 100) ** 2 + rounding(BITS)
