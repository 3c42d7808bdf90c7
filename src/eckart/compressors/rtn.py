"""Round to nearest: the baseline every quantizer is compared with."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors._one_by_one import bits_family
from eckart.compressors.contract import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics
from eckart.structures.quantized import Quantized

GROUP = 64


@compressor(
    "rtn",
    paper="Nagel 2021, arXiv 2106.08295, section 2",
    expression="Quantized",
    size="bits",
)
def round_to_nearest(weight: Tensor, statistics: Statistics, *, group: int = GROUP, symmetric: bool = False) -> Family:
    """Rounds every weight to the nearest point of an affine grid, one grid for 64 inputs of a row.

    `q = clamp(round(w / s) + z, 0, 2^b - 1)`, `s = (max - min) / (2^b - 1)`, `z = round(-min / s)` (eq. 4 to 6).

    Args:
        weight: (out, in).
        statistics: not read.
        group: inputs that share a scale.
        symmetric: zero-point fixed at the middle code instead of stored.

    Raises:
        Refused: weight has NaN or Inf entries.
    """

    def fit(bits: int) -> Quantized:
        return Quantized.quantize(weight, bits, group, symmetric=symmetric)

    return bits_family(weight, fit, Metric(), group, symmetric)
