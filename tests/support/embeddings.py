"""Paired sets of embeddings."""

from __future__ import annotations

from torch import Tensor

from support import hard


def sets(pairs: int = 60, images: int = 9, texts: int = 5) -> tuple[Tensor, Tensor]:
    """Images that take some of their numbers from their texts; neither is centred."""
    y = hard.normal(pairs, texts) + 0.5
    x = hard.normal(pairs, images, seed=1) + 0.3
    x[:, : min(images, texts)] += 2 * y[:, : min(images, texts)]
    return x, y
