"""The job of `eckart compress` for models larger than memory: block by block from files into files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eckart.errors import Refused
from eckart.jobs.calibration import MIXTURE, SELF, Body
from eckart.jobs.compress.blockwise.run import opened_files, run_blockwise
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.report import compression_report, size_change
from eckart.jobs.evaluate.quality import check_length
from eckart.jobs.evaluate.speed import weight_bytes
from eckart.jobs.material import Size, calibration_of
from eckart.jobs.texts import Texts
from eckart.jobs.workspace import Workspace
from eckart.machine import memory_available, memory_on, peak_rss_bytes
from eckart.models import checkpoint
from eckart.models.block_files import BlockFiles
from eckart.models.fused_experts import is_packed
from eckart.models.sites import all_sites, model_bytes, model_cost
from eckart.models.tasks import task_of
from eckart.models.transformers import Loaded, check_source
from eckart.progress import Progress
from eckart.report import as_json, write_report
from eckart.report.numbers import shown_bytes
from eckart.statistics import Need
from eckart.statistics.batches import Batch
from eckart.statistics.fingerprint import data_fingerprint
from eckart.statistics.second_moment import LARGEST

NOTHING: dict[str, Any] = {"tokens": 0, "fingerprint": ""}
"""What is said of a calibration that there was not."""
TEXTS = "texts"
"""The calibration mixture without what the model would write itself."""


def needed_at_once(model: nn.Module, recipe: Recipe) -> int:
    """Bytes that the whole model takes at least: its weights, what becomes of them, the statistics of one matrix."""
    sites = all_sites(model, embeddings=recipe.takes_embeddings, head=recipe.takes_head)
    moments = {Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT} & set(recipe.card.needs)
    side = max((min(max(site.shape), LARGEST) for site in sites), default=0)
    return 2 * model_bytes(model) + (12 * side * side if moments else 0)


def of_larger(model: nn.Module, recipe: Recipe, memory: int | None, device: torch.device) -> list[str]:
    """What is said before a run of a model that does not fit in a memory, or in what is free; nothing else."""
    if needed_at_once(model, recipe) <= room_of(memory, device):
        return []
    return ["the whole model does not fit in memory: it is worked on block by block, where that can be"]


def room_of(memory: int | None, device: torch.device) -> int:
    """Bytes for a whole model: what is allowed, or free where None is, and no more than a device has free."""
    return int(min(memory_available() if memory is None else memory, memory_on(device)))


def files_of(loaded: Loaded, recipe: Recipe, texts: Texts, device: torch.device) -> BlockFiles:
    """The blocks of a model in its files, and no longer in memory; Refused where they cannot be read one by one.

    What is in no block is put on the device.
    """
    path = check_source(loaded.source)
    if not path.is_dir() or loaded.sentences is not None:
        raise Refused(
            f"{loaded.source} is no directory with config.json and *.safetensors, whose blocks could be read one by one"
        )
    packed = next((name for name, module in loaded.model.named_modules() if name and is_packed(module)), None)
    if packed is not None:
        raise Refused(f"{packed} holds several matrices in one tensor, and cannot be read block by block")
    if texts.calibration == SELF and recipe.card.needs:
        raise Refused(
            "a model of which one block is in memory cannot write its own calibration text: name one with --calibration"
        )
    return opened_files(loaded.model, recipe, checkpoint.weight_files(path), device)


def compress_blockwise(
    work: Workspace,
    loaded: Loaded,
    files: BlockFiles,
    recipe: Recipe,
    texts: Texts,
    body: Body | None,
    *,
    limit: int,
    scheduler: str | None,
    device: torch.device,
    command: Sequence[str],
    progress: Progress,
) -> dict[str, Any]:
    """As `compress_directory` from where the model is loaded; nothing is measured of the quality and the speed.

    Args:
        work: where the directory is made.
        loaded, files: from `files_of`.
        recipe, texts, body: what to do.
        limit: bytes that the run may take.
        scheduler, progress: as there.
        device: the one that blocks are run on.
        command: what repeats the run.
    """
    model = loaded.model
    before = {**model_cost(model), "bytes": model_bytes(model)}
    if task_of(model).reads == ("text",):
        check_length(model, recipe.length)
    work.lap("load")
    warnings = [
        f"weights were read block by block: the whole model takes {shown_bytes(needed_at_once(model, recipe))} of "
        f"memory at least, and {shown_bytes(limit)} were there or allowed"
    ]
    batches: Sequence[Batch] = []
    info = NOTHING
    if body is not None:
        mixed = texts.calibration == MIXTURE
        source = TEXTS if mixed else texts.calibration
        read = calibration_of(source, body, loaded, Size(recipe.samples, recipe.length, recipe.seed))
        batches, info = read.batches, read.info
        warnings += [*read.notes, *(["its calibration mixture is of texts alone"] if mixed else [])]
    if texts.evaluation:
        warnings.append("quality and speed were not measured, which takes whole models: eckart evaluate measures them")
    work.lap("calibration")
    path = check_source(loaded.source)
    partial = work.begin({"weights": _digest(path), "calibration text": data_fingerprint(batches)})
    room = max(1, (limit - files.bytes) // 2)
    result, shards = run_blockwise(
        model,
        files,
        recipe,
        batches,
        info,
        work.finished,
        limit=room,
        scheduler=scheduler,
        lap=work.lap,
        progress=progress,
    )
    loaded.write_around(partial, shards.place)
    work.lap("write")
    work.lap("evaluate")
    if device.type == "cpu" and (peak := peak_rss_bytes() or 0) > limit:
        warnings.append(
            f"the run took {shown_bytes(peak)} of memory at its peak, not {shown_bytes(limit)}: the process, what is "
            "in no block, one block with its statistics and the fit of one matrix are the least there can be"
        )
    report: dict[str, Any] = as_json(
        compression_report(
            result,
            model=loaded.source,
            max_loss=None,
            text=texts.calibration,
            size=size_change(before, _after(model, partial)),
            quality=None,
            speed=None,
            seconds=work.lap.seconds,
            history=(),
            warnings=warnings,
            command=command,
        )
    )
    write_report(report, partial)
    return report


def _after(model: nn.Module, directory: Path) -> Mapping[str, int]:
    return {**model_cost(model), "bytes": weight_bytes(directory)}


def _digest(path: Path) -> str:
    """Names a model by its files."""
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for file in checkpoint.weight_files(path):
        with file.open("rb") as stream:
            while part := stream.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()
