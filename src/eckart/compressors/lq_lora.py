"""LQ-LoRA: codes for most of the matrix, and a product of low rank for what they miss."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying
from eckart.compressors.contract import Family, compressor
from eckart.linalg.low_rank import damped, project
from eckart.linalg.quantized_plus_low_rank import codes_and_product
from eckart.metrics import Metric
from eckart.ops.packing import fitted_scales, grouped, normal_float, pack
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Sum
from eckart.structures.low_rank import low_rank, low_rank_cost
from eckart.structures.quantized import Quantized, finite_matrix

BITS = (2, 3, 4, 8)
GROUP = 64
RANK = 64


@compressor(
    "lq-lora",
    paper="Guo et al. 2023, arXiv 2311.12023",
    expression="Sum(Quantized, Chain(Dense, Dense))",
    needs=(Need.FISHER_ROWS, Need.FISHER_COLUMNS),
    size="bits",
    allocation="exact",
)
def lq_lora(weight: Tensor, statistics: Statistics) -> Family:
    """W ~ Q + L1 L2, Q in NormalFloat codes and L1 L2 of low rank, each fitted to what the other leaves.

    L1 L2 is the best in the metric of the Fisher information F = E[(dloss/dW)^2], taken for the product of its row and
    column sums over its total: `SVD_r(D_row (W - Q) D_col)` undone, section 3.3. Errors are sums of F (W - What)^2,
    comparable between matrices, among which the bits are shared out exactly, as by the paper's integer program. The
    rank is min(64, min(out, in) // 8) and groups are of 64; the scales keep the weight's dtype.

    Two departures: scales are least squares of their groups, and an SVD takes the place of the randomized one. The
    authors' code, whose scales are the largest magnitudes, rounded to 8 bits, has an error 2 to 12 % larger at 3 and 4
    bits (`benchmarks/peers/authors.py`).

    Args:
        weight: (out, in).
        statistics: `fisher_rows` and `fisher_columns` are read.

    Raises:
        Refused: weight or statistics have NaN or Inf entries, or the error overflows.
    """
    weight = finite_matrix(weight)
    out, size = weight.shape
    rows, columns = (damped(statistics.get(need), 1e-6) for need in (Need.FISHER_ROWS, Need.FISHER_COLUMNS))
    rows = rows / rows.sum()
    metric = Metric(rows, columns)
    rank = min(RANK, max(1, min(out, size) // 8))
    codebooks = {bits: normal_float(bits) for bits in BITS}
    start = project(weight, metric).factors(weight, rank)

    def cost(bits: int) -> Cost:
        coded = Quantized.empty(weight.shape, bits, GROUP, weight.dtype, codebook=codebooks[bits]).cost()
        return coded + low_rank_cost(out, size, rank, weight.element_size())

    def fit(bits: int) -> Sum:
        def quantize(rest: Tensor) -> Quantized:
            return weighted_codes(rest, columns, bits, codebooks[bits], weight.dtype)

        codes, left, right = codes_and_product(weight, rows, columns, start, quantize)
        return Sum(codes, low_rank(left.to(weight.dtype).contiguous(), right.to(weight.dtype).contiguous()))

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, metric)


def weighted_codes(rest: Tensor, columns: Tensor, bits: int, codebook: Tensor, dtype: torch.dtype) -> Quantized:
    """NormalFloat codes of a matrix whose scales are least squares, not the largest magnitudes, of their groups.

    Args:
        rest: (out, in).
        columns: weights of the squared error, positive, (in,).
        bits: of a code.
        codebook: (2^bits,), ascending.
        dtype: of the scales.
    """
    out, size = finite_matrix(rest).shape
    group = min(GROUP, size)
    importance = grouped((columns / columns.max()).to(torch.promote_types(dtype, torch.float32)), group)
    scales, codes = fitted_scales(grouped(rest, group), bits, dtype, codebook, importance)
    packed = pack(codes.view(out, -1)[:, :size], bits)
    return Quantized(packed, scales, None, codebook.to(dtype), bits=bits, group=group, columns=size)
