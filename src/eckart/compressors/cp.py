"""A convolution as a sum of outer products: two changes of channels around one filter along each direction."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._low_rank import fit_low_rank
from eckart.compressors._nested_sums import MOST
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors.contract import Family, compressor
from eckart.linalg.cp import alternating
from eckart.metrics import Metric
from eckart.ops.powers_of_two import power_of_two
from eckart.statistics.needs import Statistics
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.conv_filters import chain, filters_of, interleaved, pointwise
from eckart.structures.dense import Dense


@compressor(
    "cp",
    paper="Lebedev et al. 2015, arXiv 1412.6553",
    expression="Chain(Dense, BlockDiagonal, Interleaved(BlockDiagonal), Interleaved(Dense))",
)
def cp(weight: Tensor, statistics: Statistics) -> Family:
    """W[o, c, y, x] ~ sum_r A[o, r] B[c, r] Y[y, r] X[x, r]: 1 x 1, a column and a row for each channel, 1 x 1.

    Alternating least squares: each factor in turn is the best one for the others. Terms that grow against each other,
    which is how these sums degenerate, are held back by a proximal term that leaves the fixed points where they are,
    and the factors are brought to one norm after every sweep. The best of three random starts is carried on. The paper
    uses nonlinear least squares, and trains the network afterwards. Without patches it is the SVD, the optimum then.
    """
    w = filters_of(weight, statistics)
    if w[0, 0].numel() == 1:
        return fit_low_rank(weight, Metric())
    scale = power_of_two(w)
    scaled = w.double() / scale

    def cost(rank: int) -> Cost:
        return expression([torch.empty(n, rank, dtype=w.dtype, device="meta") for n in w.shape]).cost()

    def fit(rank: int) -> StructuredMatrix:
        return expression([(f * scale**0.25).to(w.dtype).contiguous() for f in alternating(scaled, rank)])

    most = (w.numel() - 1) // max(1, cost(1).parameters)
    step = max(1, -(-most // MOST))
    return OneByOne(weight, range(step, most + 1, step), cost, fit, Metric())


def expression(factors: list[Tensor]) -> StructuredMatrix:
    """The sum as a structure, from A (out, r), B (channels, r), Y (height, r), X (width, r)."""
    a, b, y, x = factors
    height, width = len(y), len(x)
    if height == 1:
        b = b * y
    if width == 1:
        a = a * x
    parts: list[StructuredMatrix] = [Dense(a)]
    if width > 1:
        parts.append(BlockDiagonal(x.T[:, None].contiguous()))
    if height > 1:
        parts.append(interleaved(BlockDiagonal(y.T[:, None].contiguous()), width))
    return chain([*parts, pointwise(b.T.contiguous(), height * width)])
