"""A model that is rotated before it is compressed."""

from __future__ import annotations

from typing import Any

from torch import nn

from eckart.errors import Refused
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.coverage import ROTATED
from eckart.models.rotation import added_numbers, rotate


def rotated(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    """Rotates the residual stream, where a recipe says so; returns what `rotation_adds` does, and refuses as it."""
    added = rotation_adds(model, recipe)
    if recipe.rotate:
        rotate(model, recipe.seed)
    return added


def rotation_adds(model: Any, recipe: Recipe) -> dict[str, int]:
    """What a rotation adds to the cost of a dense model, by currency; empty where nothing.

    Raises:
        Refused: the model cannot be rotated, or an embedding is wanted that the head reads too.
    """
    if not recipe.rotate:
        return {}
    if (recipe.takes_embeddings or recipe.takes_head) and getattr(
        getattr(model, "config", None), "tie_word_embeddings", False
    ):
        raise Refused(
            "the head is tied to the embedding, which it reads through a small matrix once the stream is rotated: "
            "leave out embeddings= and head=, or rotate="
        )
    numbers = added_numbers(model)
    size = model.model.embed_tokens.weight.element_size()
    return {"parameters": numbers, "bytes": numbers * size, "macs": numbers} if numbers else {}


def kept_by_rotation(model: Any, added: dict[str, int]) -> dict[str, str]:
    """Why an embedding and a head that is tied to it stay as they are, by name, before and after the rotation."""
    both = (model.model.embed_tokens, model.lm_head) if added else ()
    return {name: ROTATED for name, module in model.named_modules() if any(module is one for one in both)}
