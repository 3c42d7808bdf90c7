"""What pruning methods share: the candidates they offer, and how the entries to keep are picked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying
from eckart.metrics import Metric
from eckart.ops.order_statistics import largest
from eckart.ops.packing import row_bytes
from eckart.structures.base import Cost
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix
from eckart.structures.semisparse import SemiSparse

PERCENT = range(5, 100, 5)
NEIGHBOURS = 4


def unstructured(
    weight: Tensor, stored: Callable[[int], int], fit: Callable[[int], Masked], metric: Metric
) -> OneByOne:
    """Candidates with 5, 10, ..., 95 percent of the entries, as far as they are smaller than the dense matrix.

    Args:
        weight: (out, in).
        stored: the number of entries kept at a percentage, exactly; see `share`.
        fit: the candidate of a percentage.
        metric: what errors are measured in.
    """
    weight = finite_matrix(weight)

    @cache
    def cost(percent: int) -> Cost:
        return Masked.empty(weight.shape, stored(percent), weight.dtype).cost()

    return OneByOne(weight, paying(weight, [p for p in PERCENT if stored(p)], cost), cost, fit, metric, cut_off)


def cut_off(percent: int) -> float:
    """The share of the squared norm that is in the smallest entries, all but `percent` of them, if they are normal.

    With t the quantile such that |z| < t for a share q of the entries: `E[z^2; |z| < t] = q - 2 t phi(t)`.
    """
    q = 1 - percent / 100
    t = NormalDist().inv_cdf((1 + q) / 2)
    return q - 2 * t * NormalDist().pdf(t)


def semistructured(weight: Tensor, fit: Callable[[int], SemiSparse], metric: Metric) -> OneByOne:
    """Candidates with 1, 2 and 3 of every 4 neighbours in a row, as far as they are smaller than the dense matrix.

    Args:
        weight: (out, in).
        fit: the candidate with so many kept of four.
        metric: what errors are measured in.
    """
    out, size = finite_matrix(weight).shape

    def cost(kept: int) -> Cost:
        values = kept * -(-size // NEIGHBOURS)
        return SemiSparse(
            torch.empty(out, values, dtype=weight.dtype, device="meta"),
            torch.empty(out, row_bytes(values, 2), dtype=torch.uint8, device="meta"),
            n=kept,
            m=NEIGHBOURS,
            size=size,
        ).cost()

    return OneByOne(weight, paying(weight, range(1, NEIGHBOURS), cost), cost, fit, metric)


def share(percent: int, entries: int) -> int:
    """How many of `entries` that are compared with each other are kept: no more than that share of them."""
    return percent * entries // 100


def largest_share(score: Tensor, percent: int) -> Tensor:
    """True at that share of the scores, the largest ones wherever they are: (rows, n) -> (rows, n), bool."""
    return largest(score.reshape(1, -1), share(percent, score.numel())).view(score.shape)
