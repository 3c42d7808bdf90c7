"""An optimizer along given gradients, beside which a formula is written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def stepped(optimizer: Any, weight: Tensor, grads: Sequence[Tensor], **options: Any) -> list[Tensor]:
    """Where W is after each step along the given gradients."""
    parameter = torch.nn.Parameter(weight.clone())
    made = optimizer([parameter], **options)
    places = []
    for grad in grads:
        parameter.grad = grad.clone()
        made.step()
        places.append(parameter.detach().clone())
    return places


def drawn(*shape: int, count: int = 5, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """A weight and gradients, in float64."""
    generator = torch.Generator().manual_seed(seed)
    weight, *grads = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count + 1))
    return weight, grads


def rotation(n: int, seed: int = 7) -> Tensor:
    """An orthogonal matrix, float64."""
    q: Tensor = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return q
