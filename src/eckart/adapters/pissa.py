"""The principal part of the matrix trains, the rest is frozen."""

from __future__ import annotations

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.truncated_svd import truncated_svd
from eckart.structures.low_rank import low_rank


@adapter(
    "pissa",
    paper="Meng 2024, arXiv 2404.02948",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    scaled=True,
)
def pissa(layer: Layer) -> Start:
    """W = (W - B A) + B A with B A = U_r S_r V_r^T, the best of rank r, its singular values shared evenly (equation 2).

    What is frozen is at most 1.001 times as large as with exact singular vectors, see `truncated_svd`.
    """
    u, s, vh = truncated_svd(layer.weight, check_rank(layer), generator=layer.generator)
    root = (s / layer.scale).sqrt()
    return Start(low_rank((u * root).to(layer.dtype), (root[:, None] * vh).to(layer.dtype)), split=True)
