"""Parts of a tensor that holds several matrices, as layers of their own over the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """An nn.Linear over tensors that are there."""
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)  # type: ignore[assignment]
    return layer


def views(packed: Tensor, parts: int) -> tuple[Tensor, ...]:
    """The parts of a tensor along its first dimension, over the same numbers."""
    return packed.detach().chunk(parts)
