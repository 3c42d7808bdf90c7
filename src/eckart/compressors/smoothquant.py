"""SmoothQuant: what is large in an input moves into the column that reads it, and then both are rounded."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._scaled_inputs import (
    by_input,
    centred,
    cost_of_codes,
    inputs_of,
    migration,
    moment_of,
    smoothed,
)
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.quantized import finite_matrix

BITS = (2, 3, 4, 6, 8)
GROUP = 64


@compressor(
    "smoothquant",
    paper="Xiao et al. 2022, arXiv 2211.10438",
    expression="Chain(RoundedInput(Quantized), Diagonal)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_ABS_MAX, Need.INPUT_SAMPLE),
    size="bits",
)
def smoothquant(weight: Tensor, statistics: Statistics) -> Family:
    """Inputs are divided by s and rounded to 8 bits a token; W diag(s) is rounded too, s = max|x|^1/2 / max|w|^1/2.

    `W x ~ Q(W diag(s)) q(diag(1 / s) x)`, `s_j = max|x_j|^a / max|W_j|^(1-a)`, a = 0.5 (eq. 3 and 4). q is the
    dynamic rounding of each token by itself (the paper's O1), so that no output depends on a later token. Weights have
    8 bits and one symmetric scale a row there; fewer are offered too, with a scale for 64 inputs. The division stays in
    front of the matrix: the norm that the paper folds it into is nothing that a matrix knows. It is made once a token
    and costs no bytes to speak of.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C, `input_abs_max` and `input_sample` are read; errors are
            `||(W - What) C^1/2||_F^2` and what the rounding of the sample adds to it.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries, or does not fit the weight.
    """
    weight = finite_matrix(weight)
    moment, sample = moment_of(statistics, weight), inputs_of(statistics, weight)
    scales = centred(migration(by_input(statistics.get(Need.INPUT_ABS_MAX), weight), weight))

    def cost(bits: int) -> Cost:
        return cost_of_codes(weight, bits, group_of(weight, bits), symmetric=True)

    def fit(bits: int) -> Chain:
        return smoothed(weight, scales, bits, group_of(weight, bits))

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=moment), rounding, sample)


def group_of(weight: Tensor, bits: int) -> int:
    """Inputs that share a scale of the weights: all of them at 8 bits."""
    return weight.shape[1] if bits == 8 else GROUP
