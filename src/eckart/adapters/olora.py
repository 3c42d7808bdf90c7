"""Orthonormal columns from a QR decomposition train, with their rows."""

from __future__ import annotations

import torch

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.structures.low_rank import low_rank


@adapter(
    "olora",
    paper="Buyukakyuz 2024, arXiv 2406.01775",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    scaled=True,
)
def olora(layer: Layer) -> Start:
    """W - s B A + s B A with B = Q[:, :r] and A = R[:r] of W = Q R.

    Q[:, :r] is the orthonormal factor of the first r columns, so only these are decomposed, and R[:r] = Q[:, :r]^T W.
    """
    q = torch.linalg.qr(layer.weight[:, : check_rank(layer)].double()).Q.to(layer.dtype).contiguous()
    return Start(low_rank(q, q.T @ layer.weight.to(layer.dtype)), split=True)
