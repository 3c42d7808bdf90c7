"""Few bits with codes of several rows, where others code every entry for itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors._shared_inputs import exact_dtype, input_metric, input_side
from eckart.compressors.contract import Family, compressor
from eckart.compressors.gptq import shared_factor
from eckart.errors import Refused
from eckart.linalg.optimal_brain_surgery import sweep
from eckart.ops.native.vector_quantized import LENGTHS
from eckart.ops.vector_codebooks import fitted_vectors, nearest_vectors
from eckart.statistics.needs import Need, Statistics
from eckart.structures._checks import size_option
from eckart.structures.base import Cost
from eckart.structures.quantized import finite_matrix
from eckart.structures.vector_quantized import VectorQuantized

BITS = (2, 3, 4)
GROUP = 64
SHARE = 8
"""How many times its own bytes the codes of a codebook take at least."""


@compressor(
    "vector-codebook",
    paper="eckart; after van Baalen et al. 2024, arXiv 2402.15319 (GPTVQ), and Egiazarian et al. 2024, arXiv "
    "2401.06118 (AQLM)",
    expression="VectorQuantized",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="bits",
)
def vector_codebook(weight: Tensor, statistics: Statistics, *, group: int = GROUP, length: int = 4) -> Family:
    """Entries of one input in up to four rows share a code, and the columns not yet rounded make up for the error.

    A code of `b d` bits is the number of one of 2^(b d) vectors, which are fitted to the matrix, times a scale for each
    row and 64 inputs: b bits an entry (`ops.vector_codebooks.fitted_vectors`, where errors of column j count
    `1 / U[j, j]^2` times as in `codebook-gptq`). As all rows have one metric, codes along them leave the order and the
    error feedback of `gptq` as they are: a column is rounded, to the nearest vectors, before the next. GPTVQ codes
    neighbours in a row, d columns at a time, and AQLM adds up several codebooks; both go on to train what they store.
    Vectors of rows are ours.

    At 2 bits a code is for four rows, at 3 and 4 for two; for fewer where a codebook took more than an eighth of the
    bytes of its codes.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.
        group: inputs that share a scale.
        length: the most rows that share a code: 1, 2 or 4.

    Raises:
        Refused: weight or C has NaN or Inf entries, C does not fit the weight, or another length.
    """
    metric, dtype = input_metric(finite_matrix(weight), statistics), exact_dtype(weight)
    group = min(size_option("VectorQuantized", "group", group), weight.shape[1])
    if length not in LENGTHS:
        raise Refused(f"vector-codebook: length={length!r} is none of {', '.join(map(str, LENGTHS))}")
    lengths = [each for each in LENGTHS if each <= length]

    def rows_of(bits: int) -> int:
        return max(each for each in lengths if each == 1 or _pays(weight, bits * each, each))

    def cost(bits: int) -> Cost:
        rows = rows_of(bits)
        return VectorQuantized.empty(weight.shape, bits * rows, rows, group, weight.dtype).cost()

    def fit(bits: int) -> VectorQuantized:
        rows = rows_of(bits)
        return _swept(weight, *shared_factor(input_side(metric), dtype), bits * rows, rows, group)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, metric, rounding)


def _pays(weight: Tensor, bits: int, length: int) -> bool:
    """Whether codes of so many bits fit a byte, and a codebook takes no more than an eighth of their bytes."""
    codes = weight.numel() // length * bits // 8
    return bits <= 8 and SHARE * (1 << bits) * length * weight.element_size() <= codes


def _swept(weight: Tensor, order: Tensor, factor: Tensor, bits: int, length: int, group: int) -> VectorQuantized:
    w = weight.detach().to(factor.dtype)
    worth = (factor.diagonal().min() / factor.diagonal()).square()
    importance = torch.empty_like(worth).index_copy_(0, order, worth)
    codebook, scales = fitted_vectors(w, importance, bits, length, group, weight.dtype)
    points, missing = codebook.to(w.dtype), -len(w) % length
    rest = F.pad(w, (0, 0, 0, missing)).T[order].contiguous()
    scale = F.pad(scales.to(w.dtype), (0, 0, 0, missing)).T[order // group].contiguous()
    codes = torch.empty(len(rest), rest.shape[1] // length, dtype=torch.uint8, device=w.device)
    pivots = factor.diagonal().tolist()

    def round_to_vector(j: int, error: Tensor) -> None:
        unit = scale[j].view(-1, length)
        codes[j] = nearest_vectors(rest[j].view(-1, length), unit, points)
        torch.mul(points[codes[j].int()], unit, out=error.view(-1, length))
        torch.sub(rest[j], error, out=error).div_(pivots[j])

    sweep(rest, factor, round_to_vector)
    natural = torch.empty_like(codes).index_copy_(0, order, codes).T.contiguous()
    return VectorQuantized.from_codes(natural, scales, codebook, group=group)
