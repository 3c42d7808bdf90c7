"""FlexQ: weights of 6 bits, and inputs of 6 bits, or of 8 where 6 are too few."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import inputs_of, moment_of
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost
from eckart.structures.rounded_input import RoundedInput

BITS = 6
GROUP = 128
SENSITIVE = 1 / 400
"""The share of the output's energy that inputs of 6 bits may lose; above it they get 8."""


@compressor(
    "flexq",
    paper="Zhang et al. 2025, arXiv 2508.04405",
    expression="RoundedInput(Quantized)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_SAMPLE),
    size="bits",
)
def flexq(weight: Tensor, statistics: Statistics) -> Family:
    """Weights of 6 bits with a symmetric scale for 128 inputs, and inputs of 6 bits with one for 128 of a token.

    Inputs get 8 bits where 6 lose more than a four-hundredth of the energy of the outputs, measured on the sample. The
    paper speaks of an analysis of sensitivity; its code gives 8 bits to the last matrix of every MLP, by name, and 6 to
    all others. The one size is 6 bits.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C and `input_sample` are read; errors are `||(W - What) C^1/2||_F^2` and what
            the rounding of the sample adds to it.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight.
    """
    weight = finite_matrix(weight)
    moment, sample = moment_of(statistics, weight), inputs_of(statistics, weight)

    def cost(bits: int) -> Cost:
        return quantized_cost(weight.shape, bits, GROUP, weight.dtype, symmetric=True)

    def fit(bits: int) -> RoundedInput:
        codes = Quantized.quantize(weight, bits, GROUP, symmetric=True)
        return RoundedInput(codes, bits=bits if lost(codes, sample, bits) <= SENSITIVE else 8, group=GROUP)

    return OneByOne(weight, paying(weight, (BITS,), cost), cost, fit, Metric(right=moment), rounding, sample)


def lost(codes: Quantized, sample: Tensor, bits: int) -> float:
    """The share of the energy of the outputs that the rounding of inputs (tokens, in) loses."""
    exact = torch.promote_types(codes.dtype, torch.float32)
    dense, x = codes.to_dense().detach().to(exact), sample.to(exact)
    y = (x @ dense.T).double().square().sum()
    rounded = RoundedInput(codes, bits=bits, group=GROUP).rounded(x)
    return float(((rounded - x) @ dense.T).double().square().sum() / y) if y > 0 else 0.0
