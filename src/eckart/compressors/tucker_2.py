"""A convolution among fewer channels, between two changes of channels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from eckart.compressors._nested_sums import MOST
from eckart.compressors._one_by_one import OneByOne, paying
from eckart.compressors.contract import compressor
from eckart.linalg.tucker import hooi, modes, tails
from eckart.metrics import Metric
from eckart.ops.powers_of_two import power_of_two
from eckart.statistics.needs import Statistics
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.conv_filters import chain, filters_of, pointwise
from eckart.structures.dense import Dense


@compressor(
    "tucker-2",
    paper="Kim et al. 2016, arXiv 1511.06530",
    expression="Chain(Dense, Dense, Interleaved(Dense))",
    size="ranks",
)
def tucker_2(weight: Tensor, statistics: Statistics) -> OneByOne:
    """W[o, c] ~ sum_pq U[o, p] G[p, q] V[c, q]: 1 x 1 to fewer channels, the filters G among those, 1 x 1 to all.

    Higher-order orthogonal iteration (De Lathauwer et al. 2000) from the truncated decomposition. The paper takes both
    ranks from variational Bayes, one pair a convolution; here the pairs are one path to any budget: from (1, 1) on, the
    rank grows of the mode that loses more energy (the squared singular values it cuts off). A factor of full rank is
    left out. A size is the sum of both ranks. Without patches the product has three factors.
    """
    w = filters_of(weight, statistics)
    scale = power_of_two(w)
    scaled = w.double() / scale
    area = w[0, 0].numel()
    path = rank_path(*map(tails, modes(scaled)))
    # A mode has no higher rank than all the others allow it.
    pairs = {p + q: (p, q) for p, q in path if p <= area * q and q <= area * p}

    def cost(size: int) -> Cost:
        p, q = pairs[size]
        shapes = (w.shape[0], p), (p, q, *w.shape[2:]), (w.shape[1], q)
        return expression(*(torch.empty(s, dtype=w.dtype, device="meta") for s in shapes)).cost()

    def fit(size: int) -> StructuredMatrix:
        u, g, v = balanced(*hooi(scaled, *pairs[size]), scale)
        return expression(*(t.to(w.dtype).contiguous() for t in (u, g, v)))

    offered = sorted(paying(weight, list(pairs), cost), key=lambda size: cost(size).bytes)
    step = max(1, -(-len(offered) // MOST))
    return OneByOne(weight, offered[step - 1 :: step], cost, fit, Metric())


def rank_path(first: Tensor, second: Tensor) -> Iterator[tuple[int, int]]:
    """Ranks from (1, 1) to full ones, one step at a time, of the mode whose `tails` entry is larger."""
    p = q = 1
    yield p, q
    while p + q < len(first) + len(second) - 2:
        if q == len(second) - 1 or (p < len(first) - 1 and first[p] >= second[q]):
            p += 1
        else:
            q += 1
        yield p, q


def balanced(u: Tensor, g: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """The factors of `scale` times their product, of like sizes, so that none overflows a short dtype.

    A square factor is the identity and stays it.
    """
    thin = [len(factor) > factor.shape[1] for factor in (u, v)]
    share = float((g.abs().max() * scale) ** (1 / (1 + sum(thin)))) or 1.0
    for _ in range(sum(thin)):
        scale /= share
    u, v = (factor * share if is_thin else factor for factor, is_thin in zip((u, v), thin, strict=True))
    return u, g * scale, v


def expression(u: Tensor, g: Tensor, v: Tensor) -> StructuredMatrix:
    """U G (V^T kron I) as a structure; a square U or V is the identity and left out."""
    (out, p), (channels, q) = u.shape, v.shape
    right = [] if q == channels else [pointwise(v.T.contiguous(), g[0, 0].numel())]
    return chain([*([] if p == out else [Dense(u)]), Dense(g.flatten(1)), *right])
