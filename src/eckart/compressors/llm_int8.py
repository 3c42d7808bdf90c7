"""LLM.int8(): the few inputs with outliers meet their columns as they are, all others become integers."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import by_input, inputs_of, moment_of
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.compose import Chain, Sum
from eckart.structures.dense import Dense
from eckart.structures.permutation import Selection
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost
from eckart.structures.rounded_input import RoundedInput

BITS = (2, 3, 4, 8)
INPUT_BITS = 8
THRESHOLD = 6.0
"""Times the root mean square of all inputs that an outlier exceeds."""
SHARE = 128
"""At most one of so many inputs, rounded up, has outliers; the paper finds 0.1 % to 1 % of them."""


@compressor(
    "llm-int8",
    paper="Dettmers et al. 2022, arXiv 2208.07339",
    expression="Sum(Chain(RoundedInput(Quantized), Selection), Chain(Dense, Selection))",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_ABS_MAX, Need.INPUT_SAMPLE),
    size="bits",
)
def llm_int8(weight: Tensor, statistics: Statistics) -> Family:
    """Inputs with outliers meet dense columns; the others are 8-bit integers, a scale a token, times rows of integers.

    `W x ~ W[:, O] x_O + Q(W[:, R]) q(x_R)`, O the inputs that ever exceed 6 in magnitude, R the others, Q with one
    symmetric scale a row and q with one a token (section 3, eq. 8). The paper's inputs come from norms and have a mean
    square near 1: 6 here is in units of the root mean square over all inputs. The inputs of O are found in the
    calibration text, once, and no more than ceil(in / 128) of them: the paper looks for them in every batch, so that
    what it says of a token depends on the others, and on inputs of heavy tails, such as those of the last matrix of
    an MLP, finds most of them. It has 8 bits only; 4, 3 and 2 are offered as well.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C, `input_abs_max` and `input_sample` are read; errors are
            `||(W - What) C^1/2||_F^2` and what the rounding of the sample adds to it.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight.
    """
    weight = finite_matrix(weight)
    out, columns = weight.shape
    moment, sample = moment_of(statistics, weight), inputs_of(statistics, weight)
    largest = by_input(statistics.get(Need.INPUT_ABS_MAX), weight)
    energy = moment if moment.ndim == 1 else moment.diagonal()
    outliers = outlier_inputs(largest, float(energy.mean().clamp_min(0).sqrt()))
    plain = torch.ones(columns, dtype=torch.bool, device=outliers.device).index_fill(0, outliers, False)
    others = plain.nonzero()[:, 0]

    def cost(bits: int) -> Cost:
        codes = quantized_cost((out, len(others)), bits, columns, weight.dtype, symmetric=True)
        if not len(outliers):
            return codes
        values, kept, left = out * len(outliers), Selection(outliers, size=columns), Selection(others, size=columns)
        return codes + left.cost() + kept.cost() + Cost(values, values * weight.element_size(), values)

    def fit(bits: int) -> StructuredMatrix:
        codes = Quantized.quantize(weight[:, others], bits, columns, symmetric=True)
        rounded = RoundedInput(codes, bits=INPUT_BITS)
        if not len(outliers):
            return rounded
        kept = Chain(Dense(weight[:, outliers].contiguous()), Selection(outliers, size=columns))
        return Sum(Chain(rounded, Selection(others, size=columns)), kept)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=moment), rounding, sample)


def outlier_inputs(largest: Tensor, size: float) -> Tensor:
    """The inputs whose largest magnitude (in,) exceeds `THRESHOLD` sizes, ascending, int64.

    At most one of `SHARE`, and not all.
    """
    order = torch.argsort(largest, descending=True, stable=True)[: min(-(-len(largest) // SHARE), len(largest) - 1)]
    return order[largest[order] > THRESHOLD * size].sort().values
