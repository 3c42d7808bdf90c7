"""Two thin factors beside the frozen matrix."""

from __future__ import annotations

import torch

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.structures.low_rank import low_rank


@adapter(
    "lora",
    paper="Hu 2021, arXiv 2106.09685",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    scaled=True,
)
def lora(layer: Layer) -> Start:
    """W + (alpha / r) B A with B = 0 and A uniform in +-1 / sqrt(in) at the start (section 4.1)."""
    out, columns = layer.weight.shape
    rank = check_rank(layer)
    a = (2 * torch.rand(rank, columns, generator=layer.generator, dtype=layer.dtype) - 1) / columns**0.5
    return Start(low_rank(a.new_zeros(out, rank), a))
