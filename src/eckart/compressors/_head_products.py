"""Outputs of attention heads: which belong together, what they are worth, and products of two projections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eckart.layouts.attention_heads import Heads
from eckart.linalg.low_rank import balanced, project
from eckart.metrics import Metric


def pair_scores(query: Tensor, key: Tensor, rotary: int) -> Tensor:
    """Squared error of the attention scores without a pair of rotated outputs, or without one output that is not.

    Pairs of independent tokens at an angle that is uniform: E[(q^T R k)^2] = E|q|^2 E|k|^2 / 2. For a single output
    it is E[q^2] E[k^2], and for several of them the sum where they are uncorrelated. The query heads of a key head
    are one stacked matrix, whose squared norms add up.

    Args:
        query: E[q^2] (keys, queries / keys, size).
        key: E[k^2] (keys, size).
        rotary: outputs rotated, see `eckart.layouts.attention_heads.Heads`.

    Returns:
        (keys, size), for each output the share of its pair, a half: both outputs of a pair have the same.
    """
    q = query.sum(1)
    scores = q * key
    if rotary:
        both_q, both_k = (x[:, :rotary].view(len(x), 2, -1).sum(1) for x in (q, key))
        scores[:, :rotary] = (both_q * both_k).repeat(1, 2) / 4
    return scores


def rotated_order(scores: Tensor, rotary: int) -> tuple[Tensor, Tensor]:
    """Outputs of all heads by descending score, those of a pair together.

    Args:
        scores: (keys, size), from `pair_scores`.
        rotary: as there.

    Returns:
        Indices (keys * size,), and whether the first k of them cut no pair, k = 0, ..., keys * size.
    """
    keys, size = scores.shape
    own = torch.arange(size, device=scores.device)
    pair = torch.where(own < rotary, own % max(1, rotary // 2), own)
    unit = (torch.arange(keys, device=scores.device)[:, None] * size + pair).flatten()
    # By score, and where scores are equal by pair: a stable sort by the second first.
    order = unit.argsort(stable=True)
    order = order[scores.flatten()[order].argsort(descending=True, stable=True)]
    ends = unit[order][1:] != unit[order][:-1]
    whole = ends.new_ones(1)
    return order, torch.cat([whole, ends, whole])


def queries_of(index: Tensor, heads: Heads) -> Tensor:
    """The outputs of the query heads that go with outputs of their key heads, ascending.

    Args:
        index: (k,), into keys * size.

    Returns:
        (k * queries / keys,), into queries * size.
    """
    served = heads.queries // heads.keys
    first = index // heads.size * served * heads.size + index % heads.size
    return (first[:, None] + heads.size * torch.arange(served, device=index.device)).flatten().sort().values


class HeadProducts:
    """The best low rank of [O_1; O_2; ...] V for every head of values V, O_i what its query heads read it with.

    Attributes:
        gains: (keys, size), by how much each further rank lowers the squared error of a head; float64, falling.
    """

    def __init__(self, value: Tensor, output: Tensor, heads: Heads, moment: Tensor) -> None:
        """Args: value (keys * size, in); output (out, queries * size); moment of the inputs (in, in); all float64."""
        self._served, self._out = heads.queries // heads.keys, len(output)
        read = output.view(len(output), heads.keys, self._served, heads.size).permute(1, 2, 0, 3).flatten(1, 2)
        self._bases, triangles = zip(*(torch.linalg.qr(o) for o in read), strict=True)
        self._products = [r @ v for r, v in zip(triangles, value.view(heads.keys, heads.size, -1), strict=True)]
        self._projections = [project(product, Metric(right=moment)) for product in self._products]
        self.gains = torch.stack([-projection.errors.diff() for projection in self._projections])

    def factors(self, ranks: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each head at its rank r, V (r, in) and the O_i side by side (out, queries / keys * r)."""
        rows, columns = [], []
        for rank, basis, product, projection in zip(ranks, self._bases, self._products, self._projections, strict=True):
            left, right = projection.factors(product, rank)
            left, right = balanced(basis @ left, right)
            rows.append(right)
            columns.append(left.view(self._served, self._out, rank).transpose(0, 1).flatten(1))
        return rows, columns
