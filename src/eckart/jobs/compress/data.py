"""What a recipe asks of the calibration data, what is measured on them, and what of them is held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eckart.compressors.contract import METHODS, CompressorCard
from eckart.errors import Refused
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.jobs.compress.trials import HELD_BACK, held_back
from eckart.machine import memory_available
from eckart.models.checkpointing import activation_bytes, checkpointed
from eckart.models.sites import Site
from eckart.models.tasks import writes
from eckart.progress import Progress, phase
from eckart.statistics import Statistics, collect, statistics_for
from eckart.statistics.batch_checks import check_batches
from eckart.statistics.batches import Batch
from eckart.statistics.cache import Collect
from eckart.statistics.fingerprint import model_fingerprint


def check_data(model: nn.Module, recipe: Recipe, method: CompressorCard, batches: Sequence[Batch]) -> None:
    """Raises Refused where a recipe asks for what the model, the method or the calibration data do not allow."""
    if needs_data(recipe) and not batches:
        needs = ", ".join(need.value for need in method.needs) or "the pass over the blocks"
        raise Refused(f"{method.name} needs calibration data (for {needs}): pass calibration=")
    check_batches(model, batches)
    if recipe.sequential and method.together:
        raise Refused(f"{method.name} fits several matrices together, which sequential=True cannot: leave it out")
    if recipe.distill and not (writes(model) and len(tokens_of(batches)) == len(batches)):
        raise Refused("distill= trains a language model on calibration tokens, which this is not: leave it out")


def of_one_batch(heal: int, batches: Sequence[Batch]) -> list[str]:
    """What is to be said where blocks are not trained on some batches and judged on others."""
    if not heal or len(batches) > 1:
        return []
    return [f"heal={heal} trained and judged on the same one batch: raise samples=, or give more batches"]


def tokens_of(batches: Sequence[Batch]) -> list[Tensor]:
    """The batches that are nothing but tokens."""
    return [batch for batch in batches if isinstance(batch, Tensor)]


def set_aside(model: nn.Module, recipe: Recipe, batches: Sequence[Batch]) -> tuple[Sequence[Batch], Tensor | None]:
    """What is fitted on, and the sequences that are held back so that methods can compete on them, or None."""
    tokens = tokens_of(batches)
    competing = recipe.method == "auto" and writes(model)
    if competing and len(tokens) == len(batches) and sum(map(len, tokens)) >= HELD_BACK:
        return held_back(tokens)
    return batches, None


def measured(
    model: nn.Module,
    sites: Sequence[Site],
    recipe: Recipe,
    batches: Sequence[Batch],
    cache: Path | None,
    identity: str | None,
    memory: int | None,
    progress: Progress,
    collected: Collect = collect,
) -> tuple[dict[str, Statistics], int, bool]:
    """What the method reads of every site, in how many passes, and whether activations were computed twice for it."""
    activations = activation_bytes([site.shape for site in sites if not site.is_embedding], batches)
    if cache is not None and identity is None:
        identity = model_fingerprint(model)  # before blocks are switched to computing activations anew
    with checkpointed(model, activations > (memory or memory_available()) // 2) as recomputed:
        statistics, passes = statistics_for(
            model,
            {site.name: site.module for site in sites},
            METHODS.find(recipe.method).needs,
            batches,
            seed=recipe.seed,
            mixed_precision=recipe.mixed_precision,
            cache=cache,
            memory=memory,
            identity=identity,
            collect=collected,
            on_progress=phase(progress, "statistics"),
        )
    return statistics, passes, recomputed


def known_of(info: Mapping[str, Any], recipe: Recipe, passes: int, recomputed: bool = False) -> dict[str, Any]:
    """What a report says of the calibration: of the text, and of how statistics were measured on it."""
    return {
        **info,
        "passes": passes,
        "sequential": recipe.sequential,
        "gradient_checkpointing": recomputed,
        "mixed_precision": recipe.mixed_precision,
    }
