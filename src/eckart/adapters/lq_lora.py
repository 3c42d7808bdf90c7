"""A quantized matrix and a product, both fitted where the loss is sensitive."""

from __future__ import annotations

from torch import Tensor

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.low_rank import damped, project
from eckart.linalg.quantized_plus_low_rank import codes_and_product
from eckart.metrics import Metric
from eckart.ops.packing import normal_float
from eckart.statistics.needs import Need
from eckart.structures.low_rank import low_rank
from eckart.structures.quantized import Quantized, finite_matrix

BITS, GROUP = 4, 64


@adapter(
    "lq-lora",
    paper="Guo 2023, arXiv 2311.12023",
    expression="Sum(Quantized, Chain(Dense*, Dense*))",
    needs=(Need.FISHER_ROWS, Need.FISHER_COLUMNS),
    scaled=True,
)
def lq_lora(layer: Layer) -> Start:
    """Q + B A in place of W, in turns the best for the other, errors weighted by the Fisher information (section 3.3).

    Every matrix is quantized to 4-bit NormalFloat codes in groups of 64; bits that differ between matrices are
    `eckart.compress(method="lq-lora")`, whose alternation this is.
    """
    rank = check_rank(layer)
    weight = finite_matrix(layer.weight)
    rows, columns = (damped(layer.statistics.get(need), 1e-6) for need in (Need.FISHER_ROWS, Need.FISHER_COLUMNS))
    rows, columns, codebook = rows / rows.sum(), columns / columns.sum(), normal_float(BITS)
    start = project(weight, Metric(rows, columns)).factors(weight, rank)

    def quantize(rest: Tensor) -> Quantized:
        return Quantized.quantize(rest, BITS, GROUP, codebook=codebook, dtype=weight.dtype)

    codes, *factors = codes_and_product(weight, rows, columns, start, quantize)
    left, right = ((factor / layer.scale**0.5).to(layer.dtype).contiguous() for factor in factors)
    return Start(low_rank(left, right), frozen=codes)
