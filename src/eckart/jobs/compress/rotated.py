"""A model that is rotated before it is compressed."""

from __future__ import annotations

from torch import nn

from eckart.errors import Refused
from eckart.jobs.compress.recipe import Recipe
from eckart.models.rotation import rotate


def rotated(model: nn.Module, recipe: Recipe) -> None:
    """Rotates the residual stream; Refused where that cannot be, or an embedding is wanted that the head reads too."""
    config = getattr(model, "config", None)
    if (recipe.embeddings or recipe.head) and getattr(config, "tie_word_embeddings", False):
        raise Refused(
            "the head is tied to the embedding, which it reads through a small matrix once the stream is rotated: "
            "leave out embeddings= and head=, or rotate="
        )
    rotate(model, recipe.seed)
