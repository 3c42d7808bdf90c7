"""Bipolar integers: weights and inputs as planes of signs, whose products are counts of bits that differ."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import inputs_of, moment_of
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.ops.input_rounding import nearest_odd
from eckart.ops.packing import grouped
from eckart.statistics.needs import Need, Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.binary_coded import BinaryCoded
from eckart.structures.bipolar_input import BipolarInput
from eckart.structures.quantized import finite_matrix

BITS = (1, 2, 3, 4, 5, 6, 8)
GROUP = 128
INPUT_BITS = 8
ROUNDS = 15


@compressor(
    "bitplane-int",
    paper="Ma et al. 2024, arXiv 2409.17870",
    expression="BipolarInput(BinaryCoded)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_SAMPLE),
    size="bits",
)
def bitplane_int(weight: Tensor, statistics: Statistics, *, group: int = GROUP, inputs: int = INPUT_BITS) -> Family:
    """Weights and inputs are odd integers, `sum_i 2^i b_i` with b_i in {-1, 1}: symmetric, and without a sign bit.

    With W of p and x of q such planes, `w . x = s t sum_ij 2^(i+j) (n - 2 |W_i xor X_j|)`, |.| the number of bits that
    are set: exact, in p q passes over bits. On a CPU that pays for one token and p q up to 4
    (`structures.BipolarInput`); for more, the same product comes out of tables of sums of inputs, in p passes, and from
    3 planes of weights on integers of 4 bits times inputs of 8 are as fast as either or faster.

    The paper leaves open how scales are found. Here those of weights are of least squares in groups of inputs, and so
    is the one of a token. W is stored as any sum of planes is, with a scale for each plane, where one for all would do.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C and `input_sample` are read; errors are `||(W - What) C^1/2||_F^2` and what
            the rounding of the sample adds to it.
        group: inputs that share scales, a multiple of 16.
        inputs: bits of an input, 1 to 8.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight; a group that is no multiple
            of 16, or bits of inputs outside 1 to 8.
    """
    weight, group = finite_matrix(weight), size_option("BinaryCoded", "group", group)
    moment, sample = moment_of(statistics, weight), inputs_of(statistics, weight)

    def cost(bits: int) -> Cost:
        return BipolarInput(BinaryCoded.empty(weight.shape, bits, group, weight.dtype), bits=inputs).cost()

    def fit(bits: int) -> BipolarInput:
        return BipolarInput(bipolar(weight, bits, group), bits=inputs)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=moment), rounding, sample)


def bipolar(weight: Tensor, bits: int, group: int) -> BinaryCoded:
    """W (out, in) as odd integers k below `2^bits` times a scale s for each group of a row.

    From `s = max|w| / (2^bits - 1)` on, k nearest to w / s and `s = sum w k / sum k^2` take turns, 15 times.
    """
    columns = weight.shape[1]
    group = min(group, columns)
    rows, inside = grouped(weight.double(), group), grouped(weight.new_ones(columns, dtype=torch.float64), group)
    scales = rows.abs().amax(-1, keepdim=True) / ((1 << bits) - 1)
    for _ in range(ROUNDS):
        k = nearest_odd(rows / torch.where(scales > 0, scales, torch.ones_like(scales)), bits) * inside
        scales = (rows * k).sum(-1, keepdim=True) / k.square().sum(-1, keepdim=True)
    scales = scales.to(weight.dtype)
    exact = scales.double()
    k = nearest_odd(rows / torch.where(exact > 0, exact, torch.ones_like(exact)), bits)
    codes = (k.long() + (1 << bits) - 1).flatten(1)[:, :columns] >> 1
    planes = torch.arange(bits, device=weight.device)
    signs = (codes >> planes[:, None, None] & 1).bool()
    return BinaryCoded.from_planes(signs, scales * (1 << planes).to(scales.dtype), group=group)
