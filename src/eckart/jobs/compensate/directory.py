"""The job of `eckart compensate`: a compressed directory in, a compensated one out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eckart._version import __version__
from eckart.jobs.calibration import check_sampling
from eckart.jobs.compensate.run import compensate, find_places, metric_for, uniform_ranks
from eckart.jobs.evaluate.quality import check_length, evaluate
from eckart.jobs.material import Size, calibration_of, held_out_of
from eckart.jobs.texts import Texts, check_overlap, options_of, read_texts
from eckart.jobs.workspace import workspace
from eckart.machine import memory_available
from eckart.models import transformers as hf
from eckart.models.fused_experts import unfuse
from eckart.models.sharing import share
from eckart.models.sites import model_bytes, model_cost
from eckart.models.tasks import check_writes, task_of
from eckart.progress import Progress, silent
from eckart.report import as_json, write_report
from eckart.report.command import changed_from, command_words
from eckart.report.compensation import (
    CompensatedMatrix,
    CompensationReport,
    CompensationSeconds,
    CompensationText,
    Extent,
    Extents,
    Standing,
    Standings,
)
from eckart.statistics import cache_directory

COMPENSATION = "compensation.json"
"""What was done to a compensated model, beside it."""


def compensate_directory(
    source: str,
    against: str,
    out: str | Path,
    rank: int,
    texts: Texts,
    *,
    metric: str | None = None,
    allocation: str = "uniform",
    samples: int = 64,
    length: int = 256,
    seed: int = 0,
    cache: Path | None = None,
    memory: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compensates a compressed model into a new directory, and returns what its `compensation.json` says.

    Args:
        source: a directory that eckart wrote.
        against: the model that was compressed; see `eckart.models.transformers.load_model`.
        out: the directory to make. It appears whole or not at all.
        rank, metric, allocation, samples, length, seed: see `eckart.jobs.compensate.run.compensate`.
        texts: calibration and evaluation.
        cache: directory of statistics; None for the user's.
        memory: bytes the statistics may take in one pass; None for half of what is free.
        device: where the models are run, see `eckart.machine.device_named`.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    asked = {"metric": metric, "allocation": allocation, "samples": samples, "length": length, "seed": seed}
    asked |= {"device": device}
    told = {"against": against, "rank": rank, **changed_from(compensate_directory, asked), **options_of(texts)}
    gigabytes = None if memory is None else memory / 1e9
    metric = metric_for(metric, allocation)
    check_sampling(samples, length, seed)
    with workspace(out) as work:
        cache = cache or cache_directory()
        body, evaluation = read_texts(texts)
        assert body is not None
        for each in (source, against):
            hf.check_source(each)
        loaded, dense = opened(source, against, progress, device)
        model = loaded.model
        check_length(model, max(length, texts.eval_length if texts.evaluation else 0))
        uniform_ranks(find_places(model, dense), rank)
        held_out = None
        if evaluation is not None:
            size = Size(texts.eval_samples, texts.eval_length, seed)
            held_out = held_out_of(texts.evaluation, evaluation, loaded, size)
        work.lap("load")
        size = Size(samples, length, seed)
        writer = replace(loaded, model=dense)
        read = calibration_of(texts.calibration, body, writer, size, cache=cache, progress=progress)
        warnings = check_overlap(read, held_out, texts)
        work.lap("calibration")
        before = share(model)
        result = compensate(
            model,
            dense,
            rank,
            metric=metric,
            allocation=allocation,
            calibration=read.tokens,
            seed=seed,
            cache=cache,
            memory=memory_available() // 2 if memory is None else memory,
            progress=progress,
        )
        work.lap("compensate")
        quality = judged(
            before, model, dense, None if held_out is None else held_out.tokens, texts.evaluation, progress
        )
        work.lap("evaluate")
        partial = work.begin()
        loaded.write(partial)
        report = as_json(
            CompensationReport(
                eckart=__version__,
                model=source,
                against=against,
                rank=rank,
                metric=metric,
                allocation=allocation,
                seed=seed,
                calibration=CompensationText(text=texts.calibration, **result.calibration),
                size=Extents(dense=extent(dense), before=extent(before), after=extent(model)),
                quality=quality,
                matrices=[CompensatedMatrix(name=name, **asdict(added)) for name, added in result.added.items()],
                seconds=CompensationSeconds(**work.lap.seconds),
                warnings=warnings + result.warnings,
                command=command_words("compensate", [source], {**told, "memory": gigabytes}),
            )
        )
        write_report(report, partial, COMPENSATION)
    return report


def opened(source: str, against: str, progress: Progress, device: str) -> tuple[hf.Loaded, nn.Module]:
    """The compressed model with what reads for it, and what it was."""
    progress("load", 0, 2)
    loaded = hf.load(source, device=device)
    check_writes(task_of(loaded.model), "eckart compensate")
    progress("load", 1, 2)
    dense = hf.load(against, device=device).model
    unfuse(dense)
    progress("load", 2, 2)
    return loaded, dense


def extent(model: nn.Module) -> Extent:
    """How large a model is."""
    return Extent(parameters=model_cost(model)["parameters"], bytes=model_bytes(model))


def judged(
    before: nn.Module, after: nn.Module, dense: nn.Module, held_out: Tensor | None, text: str, progress: Progress
) -> Standings | None:
    """The quality of the models on held-out text; None without any."""
    if held_out is None:
        return None
    found = []
    for done, model in enumerate((before, after), 1):
        found.append(evaluate(model, held_out, dense, micro_batch=4))
        progress("evaluate", done, 2)
    reference = found[0].reference
    assert reference is not None
    standings = [
        Standing(perplexity=each.perplexity, stderr=each.stderr, kl=each.kl, top1_agreement=each.agreement)
        for each in (reference, *found)
    ]
    return Standings(text=text, tokens=reference.tokens, dense=standings[0], before=standings[1], after=standings[2])
