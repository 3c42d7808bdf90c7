"""The job of `eckart compress`: a model in, the directory of a smaller one with its report out."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.jobs.calibration import as_batches, calibration_tokens
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.coverage import sites_of
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.jobs.compress.report import compression_report, size_change
from eckart.jobs.compress.run import run
from eckart.jobs.compress.search import LossSearch
from eckart.jobs.compress.store import DirectoryStore
from eckart.jobs.evaluate.quality import check_length, evaluate, quality_of
from eckart.jobs.evaluate.speed import compared_speed, weight_bytes
from eckart.jobs.texts import Texts, check_overlap, held_out_tokens, options_of, read_texts
from eckart.jobs.workspace import workspace
from eckart.machine import check_scheduler, memory_available
from eckart.models import transformers as hf
from eckart.models.fused_experts import unfuse
from eckart.models.quantized_input import was_quantized
from eckart.models.sharing import share
from eckart.models.sites import model_bytes, model_cost
from eckart.progress import Progress, phase, silent
from eckart.report import as_json, write_report
from eckart.report.command import changed, command_words
from eckart.report.types import Quality, Speed
from eckart.statistics import cache_directory
from eckart.statistics.cache import finite_weights
from eckart.statistics.fingerprint import data_fingerprint, model_fingerprint
from eckart.texts.tokenizer import Tokenizer


def compress_directory(
    source: str,
    out: str | Path,
    recipe: Recipe,
    texts: Texts,
    *,
    max_loss: float | None = None,
    resume: bool = False,
    scheduler: str | None = None,
    cache: Path | None = None,
    memory: int | None = None,
    measure_speed: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compresses a model into a new directory, with `report.json` and `report.html`, and returns the report.

    Args:
        source: see `eckart.models.transformers.load_model`.
        out: the directory to make. It appears whole or not at all; work in progress is in `<out>.partial`.
        recipe: what to do.
        texts: calibration and evaluation.
        max_loss: instead of `recipe.keep`: the smallest model whose perplexity on the first half of the evaluation
            sequences rises by at most this share.
        resume: go on with the work an interrupted run left.
        scheduler: address of a Dask scheduler.
        cache: directory of statistics; None for the user's.
        memory: bytes the statistics may take in one pass; None for half of what is free.
        measure_speed: time prefill and decoding of both models.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    request = {"model": source, "recipe": asdict(recipe), "texts": asdict(texts), "max_loss": max_loss}
    with workspace(out, request, resume) as work:
        check_limits(max_loss, memory, scheduler, texts)
        cache = cache or cache_directory()
        text, evaluation_text = read_texts(texts, calibrated=needs_data(recipe))
        model, dense, tokenizer = opened(source, recipe, texts, progress)
        held_out = held_out_tokens(evaluation_text, tokenizer, texts, recipe.seed)
        work.lap("load")
        identity = model_fingerprint(model)
        tokens = None
        if text is not None:
            size = recipe.samples, recipe.length, recipe.seed
            tokens = calibration_tokens(texts.calibration, text, model, tokenizer, *size, cache, progress, identity)
        warnings = [*grid_warning(source, recipe), *check_overlap(tokens, held_out, texts)]
        batches, info = as_batches(tokens, tokenizer, recipe.samples, recipe.length, recipe.seed)
        work.lap("calibration")
        before = {**model_cost(model), "bytes": model_bytes(model)}
        partial = work.begin(
            {
                "weights": identity,
                "calibration text": data_fingerprint(batches),
                "evaluation text": data_fingerprint([] if held_out is None else [held_out]),
            }
        )
        search = searching(max_loss, held_out, recipe, dense, progress)
        result = run(
            model,
            recipe,
            batches,
            info,
            cache=cache,
            identity=identity,
            memory=memory_available() // 2 if memory is None else memory,
            scheduler=scheduler,
            store=DirectoryStore(work.finished),
            search=search,
            lap=work.lap,
            progress=progress,
        )
        hf.write_model(model, tokenizer, partial)
        work.lap("write")
        quality = judged(result, dense, held_out, texts, progress)
        speed = timed(dense, model, progress) if measure_speed else None
        work.lap("evaluate")
        report = as_json(
            compression_report(
                result,
                model=source,
                max_loss=max_loss,
                text=texts.calibration,
                size=size_change(before, {**model_cost(model), "bytes": weight_bytes(partial)}),
                quality=quality,
                speed=speed,
                seconds=work.lap.seconds,
                history=search.history if search else (),
                warnings=warnings,
                command=repeating(source, recipe, texts, max_loss, scheduler, memory, measure_speed),
            )
        )
        write_report(report, partial)
    return report


def repeating(
    source: str,
    recipe: Recipe,
    texts: Texts,
    max_loss: float | None,
    scheduler: str | None,
    memory: int | None,
    measure_speed: bool,
) -> list[str]:
    """The words of the command that repeats a run, but for its place."""
    asked = {**changed(recipe), "keep": recipe.keep, "of": recipe.of}
    if max_loss is not None:
        asked |= {"max_loss": max_loss, "keep": None}
    run = {"scheduler": scheduler, "memory": None if memory is None else memory / 1e9, "no_speed": not measure_speed}
    return command_words("compress", [source], {**asked, **options_of(texts), **run})


def check_limits(max_loss: float | None, memory: int | None, scheduler: str | None, texts: Texts) -> None:
    """Raises Refused for limits that nothing can keep, or a scheduler that does not answer."""
    if max_loss is not None and not (0 < max_loss < math.inf and texts.evaluation):
        raise Refused(f"max_loss={max_loss} must be above 0 and finite, and needs an evaluation text")
    if memory is not None and memory < 1:
        raise Refused(f"memory={memory} must be at least one byte")
    if scheduler is not None:
        check_scheduler(scheduler)


def opened(source: str, recipe: Recipe, texts: Texts, progress: Progress) -> tuple[nn.Module, nn.Module, Tokenizer]:
    """The model, itself once more to stay dense, and its tokenizer; Refused where it cannot be compressed as asked."""
    progress("load", 0, 1)
    model, tokenizer = hf.load_model(source)
    progress("load", 1, 1)
    check_length(model, max(recipe.length, texts.eval_length if texts.evaluation else 0))
    dense = share(model)
    unfuse(model)
    sites_of(model, recipe)
    finite_weights({"": model})
    return model, dense, tokenizer


def grid_warning(source: str, recipe: Recipe) -> list[str]:
    """A warning of weights that lie on a grid already, which flatters whatever quantizes them."""
    on_a_grid = source == "smollm2" or source.endswith(".gguf") or was_quantized(Path(source))
    if on_a_grid and METHODS.find(recipe.method).size == "bits":
        return [f"the weights of {source} were quantized before, so quantizing them again may look too good"]
    return []


def searching(
    max_loss: float | None, held_out: Tensor | None, recipe: Recipe, dense: nn.Module, progress: Progress
) -> LossSearch | None:
    """What picks the sizes in the place of `recipe.keep`, on half of the text; None where the recipe does."""
    if max_loss is None or held_out is None:
        return None
    return LossSearch(max_loss, held_out[: max(1, len(held_out) // 2)], recipe, dense, progress)


def judged(
    result: Compression, dense: nn.Module, held_out: Tensor | None, texts: Texts, progress: Progress
) -> Quality | None:
    """The quality of both models on held-out text; None without any."""
    if held_out is None:
        return None
    found = evaluate(result.model, held_out, dense, micro_batch=4, on_progress=phase(progress, "evaluate"))
    return quality_of(found, texts.evaluation, result.error / 2 if result.plan.method.predicts_loss else None)


def timed(dense: nn.Module, model: nn.Module, progress: Progress) -> Speed:
    """The speeds of both models."""
    progress("speed", 0, 1)
    speed = compared_speed(dense, model)
    progress("speed", 1, 1)
    return speed
