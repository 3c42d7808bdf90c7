"""A quantized matrix and a product, both fitted where the loss is sensitive."""

from __future__ import annotations

from eckart.linalg.lowrank import project
from eckart.methods.adapters import Layer, Start, adapter, check_rank
from eckart.methods.compress.lq_lora import alternate
from eckart.methods.lowrank import balanced, damped
from eckart.metrics import Metric
from eckart.statistics.needs import Need
from eckart.structures.lowrank import low_rank
from eckart.structures.packing import normal_float
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
    rows, columns = rows / rows.sum(), columns / columns.sum()
    metric, codebook = Metric(rows, columns), normal_float(BITS)
    start = project(weight, metric).factors(weight, rank)
    codes = alternate(
        weight,
        *start,
        rows,
        columns,
        lambda rest: Quantized.quantize(rest, BITS, GROUP, codebook=codebook, dtype=weight.dtype),
    )
    rest = weight.double() - codes.to_dense().detach().double()
    root = layer.scale**0.5
    left, right = (
        (factor / root).to(layer.dtype).contiguous() for factor in balanced(*project(rest, metric).factors(rest, rank))
    )
    return Start(low_rank(left, right), frozen=codes)
