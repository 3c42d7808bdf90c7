"""The largest singular values are scaled and shifted; what remains takes an update of low rank."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.adapters._svd_form import frozen
from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.truncated_svd import truncated_svd
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain, Sum
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal, Identity
from eckart.structures.scaled import Scaled

DEVIATION = 0.01
"""Of the entries of X at the start."""


@adapter(
    "salt",
    paper="Elsayed 2025, arXiv 2503.16055",
    expression="Sum(Dense, Chain(Dense, Sum(Chain(Diagonal*, Diagonal), Diagonal*), Dense), Chain(Sum(Identity, "
    "Chain(Dense, Dense)), Dense*, Dense*, Sum(Identity, Chain(Dense, Dense))))",
    parameters=lambda out, columns, rank: rank * (out + columns + 2),
)
def salt(layer: Layer) -> Start:
    """W + U_r diag(a s_r + b) V_r^T + (I - U_r U_r^T) X Y (I - V_r V_r^T), with a = b = 0, Y = 0 and X random.

    The paper's scale of the singular values is 1 + a. It writes the second term in the basis of the other singular
    vectors, as `U_rest X Y V_rest^T`; here X and Y are in the coordinates of outputs and inputs, and the projections
    keep them off U_r and V_r, so that those vectors need not be stored. Its authors start Y at random, which changes W
    before any step, and cut singular values at zero: both are left out, as is their penalty on the size of the change.

    The rank is the number of singular values that train, and the rank of X Y.
    """
    rank = check_rank(layer)
    out, columns = layer.weight.shape
    u, s, vh = (t.to(layer.dtype) for t in truncated_svd(layer.weight, rank, generator=layer.generator))
    zeros = torch.zeros_like(s)
    values = Sum(Chain(Diagonal(zeros), frozen(Diagonal(s))), Diagonal(zeros.clone()))
    largest = Chain(frozen(Dense(u.contiguous())), values, frozen(Dense(vh.contiguous())))
    x = DEVIATION * torch.randn(out, rank, generator=layer.generator, dtype=layer.dtype)
    others = Chain(off(u), Dense(x), Dense(x.new_zeros(rank, columns)), off(vh.T))
    return Start(Sum(largest, others))


def off(basis: Tensor) -> StructuredMatrix:
    """I - basis basis^T, which does not train; basis (n, r) with orthonormal columns."""
    basis = basis.clone(memory_format=torch.contiguous_format)
    on = Chain(Dense(basis), Dense(basis.T.contiguous()))
    return frozen(Sum(Identity(len(basis)), Scaled(on, scale=-1.0)))
