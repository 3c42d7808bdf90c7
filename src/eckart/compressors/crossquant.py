"""CrossQuant: inputs on a grid that knows how large a token is and how large an input is, of each a little."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import by_input, centred, cost_of_codes, inputs_of, moment_of, relative, smoothed
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.quantized import finite_matrix

BITS = (2, 3, 4, 6, 8)
OF_TOKENS = 0.15
"""The power a of the largest magnitude of a token; that of an input has 1 - a."""
GROUP = 64


@compressor(
    "crossquant",
    paper="Liu et al. 2024, arXiv 2410.07505",
    expression="Chain(RoundedInput(Quantized), Diagonal)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_ABS_MAX, Need.INPUT_SAMPLE),
    size="bits",
)
def crossquant(weight: Tensor, statistics: Statistics) -> Family:
    """Inputs of 8 bits, `x_ij ~ t_i^a c_j^(1-a) q_ij`, t the largest magnitude of a token, c that of an input.

    `q = round(127 x_ij / (t_i^a c_j^(1-a)))`, a = 0.15, keeps small inputs of tokens with a large one from being
    rounded to zero (eq. 5). As published, c are the largest magnitudes of the batch at hand, so that what a model says
    of a token depends on the tokens behind it: no decoder can do that, and two batches give two answers. On smollm2
    52 % of the inputs of 128 tokens are rounded otherwise once 128 more follow, by as much as the rounding itself errs;
    2.5 % become zero (the paper has less than 0.1 % for larger models of the kind), 9.2 % with a scale a token, and
    3.1 % with what is done here (`benchmarks/compressors/crossquant.py`). Here c are those of the calibration text, for
    good, and are divided out in front of the rounding:
    `W x ~ Q(W diag(c^(1-a))) q(diag(c^(a-1)) x)`. The scale of a token then is the largest of what it has left, which
    is at most t^a: no number is cut off, and none is coarser. It is SmoothQuant with another exponent and without the
    weights in it, so that all of it falls to the weights: they have 8 bits, or fewer with a scale for 64 inputs.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C, `input_abs_max` c and `input_sample` are read; errors are
            `||(W - What) C^1/2||_F^2` and what the rounding of the sample adds to it.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight.
    """
    weight = finite_matrix(weight)
    moment, sample = moment_of(statistics, weight), inputs_of(statistics, weight)
    scales = centred(relative(by_input(statistics.get(Need.INPUT_ABS_MAX), weight)) ** (1 - OF_TOKENS))

    def group(bits: int) -> int:
        return weight.shape[1] if bits == 8 else GROUP

    def cost(bits: int) -> Cost:
        return cost_of_codes(weight, bits, group(bits), symmetric=True)

    def fit(bits: int) -> Chain:
        return smoothed(weight, scales, bits, group(bits))

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=moment), rounding, sample)
