"""Labels drawn from the model itself, and the gradients of their likelihood."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sampled_gradient(output: Any, generator: torch.Generator, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where to start, and the gradient there of -log p(y), y drawn from p: softmax(z) - onehot(y), or noise."""
    logits = getattr(output, "logits", None)
    if logits is None:
        target = output if isinstance(output, Tensor) else output[0]
        gradient = torch.randn(target.shape, generator=generator, dtype=target.dtype)
    else:
        target = logits
        gradient = logits.detach().float().softmax(-1).flatten(0, -2)
        labels = draw(gradient, generator)
        gradient.scatter_add_(1, labels, gradient.new_full(labels.shape, -1.0))
        gradient = gradient.view(logits.shape).to(logits.dtype)
    if not torch.isfinite(target).all():
        raise ValueError("the model's output on calibration text has NaN or Inf entries")
    if mask is not None and mask.shape == gradient.shape[:2]:
        gradient = gradient * mask[..., None]
    return target, gradient


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One index from each row of probabilities (n, k): (n, 1), int64."""
    u = torch.rand(len(probabilities), 1, generator=generator)
    return torch.searchsorted(probabilities.cumsum(-1), u).clamp_max(probabilities.shape[1] - 1)
