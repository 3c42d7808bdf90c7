"""The largest singular values train, their vectors do not."""

from __future__ import annotations

from eckart.adapters._svd_form import leaves, triplets
from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.truncated_svd import truncated_svd


@adapter(
    "svfit",
    paper="Sun 2024, arXiv 2409.05926",
    expression="Sum(Dense, Chain(Dense, Diagonal*, Dense))",
    parameters=lambda out, columns, rank: rank,
)
def svfit(layer: Layer) -> Start:
    """W = U_r diag(s_r) V_r^T + rest, of which s_r trains.

    The rank is the number of singular values that train; the paper takes those with 99 % of the matrix.
    """
    u, s, vh = truncated_svd(layer.weight, check_rank(layer), generator=layer.generator)
    path = triplets(u.to(layer.dtype), s.to(layer.dtype), vh.to(layer.dtype))
    left, _, right = leaves(path)
    left.requires_grad_(False)
    right.requires_grad_(False)
    return Start(path, split=True)
