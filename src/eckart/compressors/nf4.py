"""NormalFloat: codes that are quantiles of the normal distribution."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.ops.packing import normal_float
from eckart.statistics.needs import Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost

GROUP = 64


@compressor(
    "nf4",
    paper="Dettmers et al. 2023, arXiv 2305.14314",
    expression="Quantized",
    size="bits",
)
def nf4(weight: Tensor, statistics: Statistics, *, group: int = GROUP) -> Family:
    """Rounds every weight to the nearest of 16 normal quantiles times the largest magnitude among 64 inputs of a row.

    `w ~ a q_i`, `a = max |w|` of the group, q the 4-bit NormalFloat levels (section 3). The one size is 4 bits.
    The scales keep the weight's dtype: the paper's second quantization, of the scales, is left out.

    Args:
        weight: (out, in).
        statistics: not read.
        group: inputs that share a scale.

    Raises:
        Refused: weight has NaN or Inf entries.
    """
    weight, group = finite_matrix(weight), size_option("Quantized", "group", group)
    codebook = normal_float(4)

    def cost(bits: int) -> Cost:
        return quantized_cost(weight.shape, bits, group, weight.dtype, levels=len(codebook))

    def fit(bits: int) -> Quantized:
        return Quantized.quantize(weight, bits, group, codebook=codebook)

    return OneByOne(weight, paying(weight, (4,), cost), cost, fit, Metric())
