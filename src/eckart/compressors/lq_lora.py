"""LQ-LoRA: codes for most of the matrix, and a product of low rank for what they miss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying
from eckart.compressors.contract import Family, compressor
from eckart.errors import Refused
from eckart.linalg.low_rank import Projection, damped, project
from eckart.linalg.quantized_plus_low_rank import codes_and_product
from eckart.metrics import Metric
from eckart.ops.packing import fitted_scales, grouped, normal_float, pack
from eckart.statistics.needs import Need, Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.compose import Sum
from eckart.structures.low_rank import low_rank, low_rank_cost
from eckart.structures.quantized import Quantized, finite_matrix, quantized_cost

BITS = (2, 3, 4, 8)
GROUPS = (64, 32, 128, 256)
"""Of inputs that share a scale; the first is that of a size that is asked for by its bits alone."""
RANKS = (64, 32, 16, 8, 4)
"""At most an eighth of the smaller side; the first is that of a size that is asked for by its bits alone."""
STRIDE = 16
"""Between the sizes of one number of bits."""


@dataclass(frozen=True)
class Configuration:
    """Bits of a code, inputs that share a scale, and the rank of the product."""

    bits: int
    group: int
    rank: int


class Configured(OneByOne):
    """Candidates of several groups and ranks for each number of bits.

    A size is the bits, and `STRIDE` times the position of group and rank among those there are, the first being the
    default: `build(4)` is 4 bits in groups of 64 with the largest rank.
    """

    @property
    def members(self) -> list[tuple[str, int]]:
        """The method of each candidate, and its bits."""
        return [("lq-lora", size % STRIDE) for size in self.sizes]


@compressor(
    "lq-lora",
    paper="Guo et al. 2023, arXiv 2311.12023",
    expression="Sum(Quantized, Chain(Dense, Dense))",
    needs=(Need.FISHER_ROWS, Need.FISHER_COLUMNS),
    size="bits",
    allocation="exact",
)
def lq_lora(weight: Tensor, statistics: Statistics, *, group: int | None = None, rank: int | None = None) -> Family:
    """W ~ Q + L1 L2, Q in NormalFloat codes and L1 L2 of low rank, each fitted to what the other leaves.

    L1 L2 is the best in the metric of the Fisher information F = E[(dloss/dW)^2], taken for the product of its row and
    column sums over its total: `SVD_r(D_row (W - Q) D_col)` undone, section 3.3. Errors are sums of F (W - What)^2,
    comparable between matrices. Among bits (2, 3, 4, 8), groups of 32 to 256 and ranks of 4 to 64, at most an eighth
    of the smaller side, a budget is shared out exactly, as by the paper's integer program over bits and groups at one
    rank. One size for every matrix is said in bits, with groups of 64 and the largest rank.

    Departures: the rank is chosen, for beside small matrices a product of rank 64 is as large as the codes; scales are
    least squares of their groups, keep the weight's dtype and are not rounded again; an SVD takes the place of the
    randomized one. The authors' code, whose scales are the largest magnitudes, rounded to 8 bits, has an error 2 to
    12 % larger at 3 and 4 bits (`benchmarks/peers/authors.py`).

    Args:
        weight: (out, in).
        statistics: `fisher_rows` and `fisher_columns` are read.
        group: inputs that share a scale; None for a choice.
        rank: of the product; None for a choice.

    Raises:
        Refused: weight or statistics have NaN or Inf entries, the error overflows, or a matrix has no such rank.
    """
    weight = finite_matrix(weight)
    out, size = weight.shape
    rows, columns = (damped(statistics.get(need), 1e-6) for need in (Need.FISHER_ROWS, Need.FISHER_COLUMNS))
    rows = rows / rows.sum()
    metric = Metric(rows, columns)
    codebooks = {bits: normal_float(bits) for bits in BITS}
    projection = project(weight, metric)
    there = configurations(weight, group, rank)

    def cost(number: int) -> Cost:
        c = there[number]
        coded = quantized_cost(weight.shape, c.bits, c.group, weight.dtype, levels=len(codebooks[c.bits]))
        return coded + low_rank_cost(out, size, c.rank, weight.element_size())

    def fit(number: int) -> Sum:
        c, scales = there[number], list[Tensor]()

        def quantize(rest: Tensor) -> Quantized:
            # The scales of one turn are where those of the next begin.
            codes = weighted_codes(rest, columns, c.bits, c.group, codebooks[c.bits], weight.dtype, *scales)
            scales[:] = [codes.scales.detach()]
            return codes

        codes, *factors = codes_and_product(weight, rows, columns, projection.factors(weight, c.rank), quantize)
        return Sum(codes, low_rank(*(factor.to(weight.dtype).contiguous() for factor in factors)))

    expected, sizes = judged(there, projection, paying(weight, sorted(there, key=lambda n: (cost(n).bytes, n)), cost))
    return Configured(weight, sizes, cost, fit, metric, expected)


def configurations(weight: Tensor, group: int | None, rank: int | None) -> dict[int, Configuration]:
    """Those of a matrix (out, in), by their sizes; Refused for a group or a rank that it cannot have."""
    out, columns = weight.shape
    most = max(1, min(out, columns) // 8)
    if rank is not None and not 1 <= rank <= min(out, columns):
        raise Refused(f"rank={rank} is not in 1..{min(out, columns)}, what a matrix {out} x {columns} allows")
    asked = GROUPS if group is None else (size_option("Quantized", "group", group),)
    groups = dict.fromkeys(min(g, columns) for g in asked)
    ranks = dict.fromkeys(min(r, most) for r in RANKS) if rank is None else (rank,)
    pairs = enumerate((g, r) for r in ranks for g in groups)
    return {bits + STRIDE * i: Configuration(bits, g, r) for i, (g, r) in pairs for bits in BITS}


def judged(
    there: dict[int, Configuration], projection: Projection, sizes: Sequence[int]
) -> tuple[Callable[[int], float], list[int]]:
    """What errors are about proportional to, falling, and the sizes that are worth a look.

    Codes err in proportion to what they are given, which is W without its best product; the product then takes a part
    of their error away, and each further bit a factor of 5: `5^-b log(1 + g) ||W - W_r||^2 (1 - r / k)^4`, k the
    smaller side, a rule of thumb. Of two sizes the one that takes more bytes and is expected to err no less is left
    out, but for those with the default group and rank.

    Args:
        there: the configurations, by size.
        projection: of W in the metric.
        sizes: in ascending order of their bytes.
    """
    found: dict[int, float] = {}
    least, full = math.inf, len(projection.errors) - 1
    for size in sizes:
        c = there[size]
        rest = float(projection.errors[c.rank]) * (1 - c.rank / (full + 1)) ** 4
        error = 5.0**-c.bits * math.log1p(c.group) * max(rest, 1e-12 * float(projection.errors[0]), 1e-300)
        if error < least or size < STRIDE:
            found[size] = least = min(least, error)
    return found.__getitem__, list(found)


def weighted_codes(
    rest: Tensor,
    columns: Tensor,
    bits: int,
    group: int,
    codebook: Tensor,
    dtype: torch.dtype,
    scales: Tensor | None = None,
) -> Quantized:
    """NormalFloat codes of a matrix whose scales are least squares, not the largest magnitudes, of their groups.

    Args:
        rest: (out, in).
        columns: weights of the squared error, positive, (in,).
        bits: of a code.
        group: inputs that share a scale.
        codebook: (2^bits,), ascending.
        dtype: of the scales.
        scales: (out, groups), where they begin; None for the largest magnitudes.
    """
    out, size = finite_matrix(rest).shape
    group = min(group, size)
    importance = grouped((columns / columns.max()).to(torch.promote_types(dtype, torch.float32)), group)
    scales, codes = fitted_scales(grouped(rest, group), bits, dtype, codebook, importance, scales)
    packed = pack(codes.view(out, -1)[:, :size], bits)
    return Quantized(packed, scales, None, codebook.to(dtype), bits=bits, group=group, columns=size)
