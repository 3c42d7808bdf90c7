"""Experts to merge, and outputs of models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.tiny import VOCABULARY


def ids(count: int = 8, length: int = 16) -> Tensor:
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(tokens).logits
    return found
