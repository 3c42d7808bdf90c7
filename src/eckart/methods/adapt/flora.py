"""A small core between two factors: the Tucker decomposition of the change."""

from __future__ import annotations

import torch

from eckart.methods.adapters import Layer, Start, adapter, check_rank
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense


@adapter(
    "flora",
    paper="Si 2024, arXiv 2405.14739",
    expression="Sum(Dense, Chain(Dense*, Dense*, Dense*))",
    parameters=lambda out, columns, rank: rank * (out + columns + rank),
    scaled=True,
)
def flora(layer: Layer) -> Start:
    """W + (alpha / r) U_1 G U_2^T with a core G (r, r) that is zero at the start, two modes of the Tucker form.

    U_1 (out, r) is uniform in +-1 / sqrt(out), U_2 (in, r) in +-1 / sqrt(in). `rank` is r: r (out + in + r) numbers.
    The paper's point are kernels of convolutions, with a factor for each of four modes; this is the linear layer.
    """
    rank = check_rank(layer)
    left, right = (
        (2 * torch.rand(n, rank, generator=layer.generator, dtype=layer.dtype) - 1) / n**0.5 for n in layer.weight.shape
    )
    return Start(Chain(Dense(left), Dense(left.new_zeros(rank, rank)), Dense(right.T.contiguous())))
