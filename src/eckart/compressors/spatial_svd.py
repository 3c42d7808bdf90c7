"""A convolution as a vertical one followed by a horizontal one."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._nested_sums import Terms
from eckart.compressors.contract import compressor
from eckart.linalg.batched_svd import batched_svd
from eckart.statistics.needs import Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain
from eckart.structures.conv_filters import filters_of, interleaved
from eckart.structures.dense import Dense


@compressor(
    "spatial-svd",
    paper="Jaderberg et al. 2014, arXiv 1405.3866",
    expression="Chain(Dense, Interleaved(Dense))",
)
def spatial_svd(weight: Tensor, statistics: Statistics) -> Terms:
    """k vertical filters (k, channels, height, 1), then k horizontal ones for each output (out, k, 1, width).

    Scheme 2 of the paper: W[o, c, y, x] ~ sum_k H[o, k, x] V[k, c, y]. That is a matrix of rank k once they are
    rearranged to (channels height) x (out width), so one SVD has the best filters of all ranks; the paper's first
    objective is this least squares problem, solved there by alternation. Without patches it is the SVD.
    """
    w = filters_of(weight, statistics)
    out, channels, height, width = w.shape
    left, right, tails = batched_svd(rearranged(w))

    def assemble(vertical: Tensor, horizontal: Tensor) -> Chain:
        return Chain(Dense(horizontal), interleaved(Dense(vertical), width))

    def cost(rank: int) -> Cost:
        shapes = (rank, channels * height), (out, rank * width)
        return assemble(*(torch.empty(s, dtype=w.dtype, device="meta") for s in shapes)).cost()

    def build(rank: int) -> Chain:
        horizontal = right[:rank].reshape(rank, out, width).transpose(0, 1).reshape(out, -1)
        return assemble(left[:, :rank].T.to(w.dtype).contiguous(), horizontal.to(w.dtype).contiguous())

    return Terms(weight, tails, cost, build)


def rearranged(filters: Tensor) -> Tensor:
    """W (out, channels, height, width) as (channels * height, out * width)."""
    return filters.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
