"""The largest singular triplets train, and their vectors are kept nearly orthonormal."""

from __future__ import annotations

from torch import Tensor

from eckart.adapters._svd_form import orthonormality, triplets
from eckart.adapters.contract import Layer, Paths, Start, adapter, check_rank
from eckart.linalg.truncated_svd import truncated_svd

GAMMA = 4e-4
"""Weight of the regulariser in the authors' runs."""


def regulariser(paths: Paths) -> Tensor:
    """gamma times the mean of `||U^T U - I||_F` and `||V^T V - I||_F`."""
    return GAMMA * orthonormality(paths)


@adapter(
    "sorsa",
    paper="Cao 2024, arXiv 2409.00055",
    expression="Sum(Dense, Chain(Dense*, Diagonal*, Dense*))",
    parameters=lambda out, columns, rank: rank * (out + columns + 1),
    regulariser=regulariser,
)
def sorsa(layer: Layer) -> Start:
    """W = U_r diag(s_r) V_r^T + rest; U, s and V train, with a term in the loss that keeps U and V orthonormal."""
    u, s, vh = truncated_svd(layer.weight, check_rank(layer), generator=layer.generator)
    return Start(triplets(u.to(layer.dtype), s.to(layer.dtype), vh.to(layer.dtype)), split=True)
