"""What an embedding multiplies its rows by."""

from __future__ import annotations

from torch import Tensor, nn


def scale_of(embedding: nn.Module) -> float:
    """The number that a scaled embedding multiplies its rows by when they are read; 1 for an ordinary one."""
    scale = getattr(embedding, "embed_scale", 1.0) if type(embedding) is not nn.Embedding else 1.0
    return float(scale) if isinstance(scale, int | float | Tensor) else 1.0
