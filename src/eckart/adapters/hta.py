"""A diagonal matrix between two orthogonal ones, each a product of reflections."""

from __future__ import annotations

import torch

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.diagonal import Diagonal
from eckart.structures.householder import Householder
from eckart.structures.permutation import Selection


@adapter(
    "hta",
    paper="Dong 2024, arXiv 2410.22952",
    expression="Sum(Dense, Chain(Householder*, Diagonal*, Householder*))",
    parameters=lambda out, columns, rank: rank * (out + columns) + min(out, columns),
)
def hta(layer: Layer) -> Start:
    """W + H(u) diag(d) H(v) with d = 0 at the start: a change that has its singular value decomposition from the start.

    The Householder transformation-based adaptor. `rank` is the number of reflections on either side, r (out + in) +
    min(out, in) numbers; the paper has one, which is rank 1. The vectors start as standard normal ones; their lengths
    do not matter. The rank of the change is free. It was called `householder` in 0.1.0, whose files are read.
    """
    rank, (out, columns) = check_rank(layer), layer.weight.shape
    u, v = (torch.randn(rank, n, generator=layer.generator, dtype=layer.dtype) for n in (out, columns))
    factors: list[StructuredMatrix] = [Householder(u), Diagonal(u.new_zeros(min(out, columns))), Householder(v)]
    if out > columns:
        factors.insert(1, Selection(torch.arange(columns), size=out, adjoint=True))
    elif out < columns:
        factors.insert(2, Selection(torch.arange(out), size=columns))
    return Start(Chain(*factors))
