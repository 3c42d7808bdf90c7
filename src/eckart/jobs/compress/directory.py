"""The job of `eckart compress`: a model in, the directory of a smaller one with its report out."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.jobs.compress.blockwise.directory import (
    NOTHING,
    compress_blockwise,
    files_of,
    needed_at_once,
    room_of,
)
from eckart.jobs.compress.blockwise.run import check_blockwise
from eckart.jobs.compress.coverage import sites_of
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.jobs.compress.report import compression_report, size_change
from eckart.jobs.compress.run import run
from eckart.jobs.compress.search import LossSearch
from eckart.jobs.compress.store import DirectoryStore
from eckart.jobs.evaluate.judge import judged
from eckart.jobs.evaluate.quality import check_length
from eckart.jobs.evaluate.speed import compared_speed, weight_bytes
from eckart.jobs.material import Material, Size, calibration_of, held_out_of
from eckart.jobs.texts import Texts, check_overlap, options_of, read_texts
from eckart.jobs.workspace import workspace
from eckart.machine import check_scheduler, device_named, memory_available
from eckart.models import transformers as hf
from eckart.models.fused_experts import unfuse
from eckart.models.quantized_input import in_codes
from eckart.models.sharing import share
from eckart.models.sites import model_bytes, model_cost
from eckart.models.tasks import check_writes, task_of
from eckart.progress import Progress, silent
from eckart.report import as_json, write_report
from eckart.report.command import changed, command_words
from eckart.report.numbers import shown_bytes
from eckart.report.types import Speed
from eckart.statistics import cache_directory
from eckart.statistics.cache import finite_weights
from eckart.statistics.fingerprint import data_fingerprint, model_fingerprint


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
    device: str = "cpu",
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
        scheduler: address of a Dask scheduler, see `run`.
        cache: directory of statistics; None for the user's.
        memory: bytes the run may take; None for what is free. A model that takes more is compressed block by block.
        device: where the model is run, see `eckart.machine.device_named`.
        measure_speed: time prefill and decoding of both models.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    request = {"model": source, "recipe": asdict(recipe), "texts": asdict(texts), "max_loss": max_loss}
    with workspace(out, request, resume) as work:
        check_limits(max_loss, memory, scheduler, texts, recipe)
        cache = cache or cache_directory()
        body, evaluation = read_texts(texts, calibrated=needs_data(recipe))
        loaded, where = read(source, device, progress)
        allowed = room_of(memory, where)
        warnings = []
        if (needed := needed_at_once(loaded.model, recipe)) > allowed:
            try:
                check_blockwise(recipe, max_loss)
                files = files_of(loaded, recipe, texts, where)
            except Refused as error:
                if memory is not None:
                    raise
                warnings = [f"memory may not suffice for the whole model ({shown_bytes(needed)}), and {error}"]
            else:
                return compress_blockwise(
                    work,
                    loaded,
                    files,
                    recipe,
                    texts,
                    body,
                    limit=allowed,
                    scheduler=scheduler,
                    device=where,
                    command=repeating(source, recipe, texts, None, scheduler, memory, measure_speed, device),
                    progress=progress,
                )
        loaded.model.to(where)
        dense = opened(loaded, recipe, texts)
        model, task = loaded.model, task_of(loaded.model)
        if max_loss is not None:
            check_writes(task, "max_loss, a rise of the perplexity,")
        held_out = material = None
        if evaluation is not None:
            size = Size(texts.eval_samples, texts.eval_length, recipe.seed)
            held_out = held_out_of(texts.evaluation, evaluation, loaded, size)
        work.lap("load")
        identity = model_fingerprint(model)
        if body is not None:
            size = Size(recipe.samples, recipe.length, recipe.seed)
            material = calibration_of(
                texts.calibration, body, loaded, size, cache=cache, progress=progress, identity=identity
            )
        warnings += [*grid_warning(source, recipe), *check_overlap(material, held_out, texts)]
        warnings += [] if material is None else material.notes
        batches, info = ([], NOTHING) if material is None else (material.batches, material.info)
        work.lap("calibration")
        before = {**model_cost(model), "bytes": model_bytes(model)}
        partial = work.begin(
            {
                "weights": identity,
                "calibration text": data_fingerprint(batches),
                "evaluation text": data_fingerprint([] if held_out is None else held_out.batches),
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
            memory=room_for_statistics(memory, before["bytes"]),
            scheduler=scheduler,
            store=DirectoryStore(work.finished),
            search=search,
            lap=work.lap,
            progress=progress,
        )
        loaded.write(partial)
        work.lap("write")
        quality = None
        if held_out is not None:
            predicted = result.error / 2 if result.plan.method.predicts_loss else None
            quality = judged(loaded, dense, held_out, texts.evaluation, progress, predicted)
        speed = timed(dense, model, progress) if measure_speed and task.writes else None
        if measure_speed and not task.writes:
            warnings.append(f"speed is that of writing text, which {task.kind} does not: it was not measured")
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
                command=repeating(source, recipe, texts, max_loss, scheduler, memory, measure_speed, device),
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
    device: str = "cpu",
) -> list[str]:
    """The words of the command that repeats a run, but for its place."""
    asked = {"method": recipe.method, **changed(recipe)}
    asked |= {} if recipe.size else {"keep": recipe.keep, "of": recipe.of}
    if max_loss is not None:
        asked |= {"max_loss": max_loss, "keep": None}
    run = {"scheduler": scheduler, "memory": None if memory is None else memory / 1e9}
    run |= {"no_speed": None if measure_speed else True, "device": None if device == "cpu" else device}
    return command_words("compress", [source], {**asked, **options_of(texts), **run})


def check_limits(
    max_loss: float | None, memory: int | None, scheduler: str | None, texts: Texts, recipe: Recipe
) -> None:
    """Raises Refused for limits that nothing can keep, or a scheduler that does not answer."""
    if max_loss is not None and not 0 < max_loss < math.inf:
        raise Refused(
            f"max_loss={max_loss} must be above 0 and finite: it is how far the perplexity may rise, 0.05 for 5 %"
        )
    if max_loss is not None and recipe.size is not None:
        word, size = recipe.size
        raise Refused(f"max_loss={max_loss} searches for sizes, and {word}={size} is that of every matrix: name one")
    if max_loss is not None and not texts.evaluation:
        raise Refused(f"max_loss={max_loss} is measured on a text, and there is none: name one with --eval")
    if memory is not None and memory < 1:
        raise Refused(f"memory={memory} must be at least one byte")
    if scheduler is not None:
        check_scheduler(scheduler)


def read(source: str, device: str, progress: Progress) -> tuple[hf.Loaded, torch.device]:
    """The model in the memory of the CPU, of which nothing has been looked at, and the device that it is for."""
    where = device_named(device)
    progress("load", 0, 1)
    loaded = hf.load(source)
    progress("load", 1, 1)
    return loaded, where


def opened(loaded: hf.Loaded, recipe: Recipe, texts: Texts) -> nn.Module:
    """A model once more, to stay dense; Refused where it cannot be compressed as asked."""
    model = loaded.model
    if task_of(model).reads == ("text",):
        check_length(model, max(recipe.length, texts.eval_length if texts.evaluation else 0))
    dense = share(model)
    unfuse(model)
    sites_of(model, recipe)
    finite_weights({"": model})
    return dense


def room_for_statistics(memory: int | None, weights: int) -> int:
    """Bytes for the statistics of one pass, of what is allowed beside the weights and what becomes of them."""
    return memory_available() // 2 if memory is None else max(1, memory - 2 * weights)


def grid_warning(source: str, recipe: Recipe) -> list[str]:
    """A warning of weights that lie on a grid already, which flatters whatever quantizes them."""
    if in_codes(source) and METHODS.find(recipe.method).size in ("bits", "candidate"):
        return [f"the weights of {source} were quantized before, so quantizing them again may look too good"]
    return []


def searching(
    max_loss: float | None, held_out: Material | None, recipe: Recipe, dense: nn.Module, progress: Progress
) -> LossSearch | None:
    """What picks the sizes in the place of `recipe.keep`, on half of the text; None where the recipe does."""
    if max_loss is None or held_out is None or held_out.tokens is None:
        return None
    return LossSearch(max_loss, held_out.tokens[: max(1, len(held_out.tokens) // 2)], recipe, dense, progress)


def timed(dense: nn.Module, model: nn.Module, progress: Progress) -> Speed:
    """The speeds of both models."""
    progress("speed", 0, 1)
    speed = compared_speed(dense, model)
    progress("speed", 1, 1)
    return speed
