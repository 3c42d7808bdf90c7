"""LQ-LoRA: codes for most of the matrix, and a product of low rank for what they miss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eckart.linalg.lowrank import project
from eckart.methods.lowrank import balanced, damped
from eckart.methods.onebyone import OneByOne, paying
from eckart.methods.registry import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Sum
from eckart.structures.lowrank import low_rank, low_rank_cost
from eckart.structures.packing import encode, normal_float, pack, pad_columns
from eckart.structures.quantized import Quantized, finite_matrix

BITS = (2, 3, 4, 8)
GROUP = 64
RANK = 64
ITERATIONS = 100
TOLERANCE = 1e-3
"""The iteration ends where the squared error falls by less than this share."""
REFITS = 3
"""Times the scales are fitted to the codes and the codes to the scales."""


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
    bits (`benchmarks/peers.py`).

    Args:
        weight: (out, in).
        statistics: `fisher_rows` and `fisher_columns` are read.

    Raises:
        ValueError: weight or statistics have NaN or Inf entries, or the error overflows.
    """
    weight = finite_matrix(weight)
    shape = (weight.shape[0], weight.shape[1])
    rows, columns = (damped(statistics.get(need), 1e-6) for need in (Need.FISHER_ROWS, Need.FISHER_COLUMNS))
    rows = rows / rows.sum()
    metric = Metric(rows, columns)
    rank = min(RANK, max(1, min(shape) // 8))
    codebooks = {bits: normal_float(bits) for bits in BITS}
    start = project(weight, metric).factors(weight, rank)

    def cost(bits: int) -> Cost:
        coded = Quantized.empty(shape, bits, GROUP, weight.dtype, codebook=codebooks[bits]).cost()
        return coded + low_rank_cost(*shape, rank, weight.element_size())

    def fit(bits: int) -> Sum:
        def quantize(rest: Tensor) -> Quantized:
            return weighted_codes(rest, columns, bits, codebooks[bits], weight.dtype)

        codes = alternate(weight, *start, rows, columns, quantize)
        rest = weight.double() - codes.to_dense().detach().double()
        left, right = balanced(*project(rest, metric).factors(rest, rank))
        return Sum(codes, low_rank(*(f.to(weight.dtype).contiguous() for f in (left, right))))

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, metric)


def weighted_codes(rest: Tensor, columns: Tensor, bits: int, codebook: Tensor, dtype: torch.dtype) -> Quantized:
    """NormalFloat codes of a matrix whose scales are least squares, not the largest magnitudes, of their groups.

    From the largest magnitudes on, `s = sum f w q / sum f q^2` over a group and the codes nearest to w / s take turns.

    Args:
        rest: (out, in).
        columns: f, weights of the squared error, positive, (in,).
        bits: of a code.
        codebook: (2^bits,), ascending.
        dtype: of the scales.
    """
    start = Quantized.quantize(rest, bits, GROUP, codebook=codebook, dtype=dtype)
    exact, group = torch.promote_types(dtype, torch.float32), start.group
    book = codebook.to(dtype).to(exact)
    w = pad_columns(rest.to(exact), group).reshape(len(rest), -1, group)
    f = pad_columns((columns / columns.max()).to(exact), group).view(-1, group)
    scales = start.scales.detach()
    codes = encode(w, scales[..., None], None, bits, book)
    for _ in range(REFITS):
        levels = book[codes.long()]
        weighed = f * levels
        over, under = (weighed * w).sum(-1), (weighed * levels).sum(-1)
        scales = torch.where((over > 0) & (under > 0), over / under, scales.to(exact)).to(dtype)
        codes = encode(w, scales[..., None], None, bits, book)
    packed = pack(codes.view(len(rest), -1)[:, : start.columns].contiguous(), bits)
    return Quantized(packed, scales, None, codebook.to(dtype), bits=bits, group=group, columns=start.columns)


def alternate(
    weight: Tensor, left: Tensor, right: Tensor, rows: Tensor, columns: Tensor, quantize: Callable[[Tensor], Quantized]
) -> Quantized:
    """Q and L1 L2 in turns: `Q = quantize(W - L1 L2)`, L1 L2 a step towards the best product for W - Q.

    Algorithm 2 of the paper with three changes: one step of orthogonal iteration from the last factors takes the place
    of an SVD, and arrives with the codes; the error is taken behind it; and the best Q is returned, not the one at
    which the error rose.

    Args:
        weight: W (out, in).
        left: L1 (out, r), that of the optimum for Q = 0.
        right: L2 (r, in), likewise.
        rows: weights of the squared error, positive, (out,).
        columns: likewise, (in,).
        quantize: codes for a matrix.
    """
    w, metric = weight.double(), Metric(rows, columns)
    g, h = rows.sqrt()[:, None], columns.sqrt()
    best = codes = quantize(w - left @ right)
    least = float("inf")
    for _ in range(ITERATIONS):
        rest = w - codes.to_dense().detach().double()
        weighted = g * rest * h
        basis = torch.linalg.qr(weighted @ torch.linalg.qr((right * h).T).Q).Q
        left, right = basis / g, basis.T @ weighted / h
        error = float(metric.error(rest - left @ right))
        if error < least:
            best = codes
        if not error < (1 - TOLERANCE) * least:
            break
        least = error
        codes = quantize(w - left @ right)
    return best
