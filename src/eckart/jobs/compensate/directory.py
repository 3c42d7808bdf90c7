"""The job of `eckart compensate`: a compressed directory in, a compensated one out."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eckart._version import __version__
from eckart.files.directories import check_target, new_directory
from eckart.jobs.calibration import calibration_tokens, check_sampling
from eckart.jobs.compensate.run import compensate, find_places, metric_for, uniform_ranks
from eckart.jobs.compress.directory import Texts, check_length, check_overlap, model_bytes, read_texts
from eckart.jobs.compress.plan import memory_available
from eckart.jobs.evaluate.quality import Evaluation, evaluate
from eckart.models import transformers as hf
from eckart.models.checkpoint import write_json
from eckart.models.fused_experts import unfuse
from eckart.models.sites import model_cost
from eckart.models.tree import share
from eckart.progress import Progress, silent
from eckart.statistics import cache_directory
from eckart.texts.sequences import sequences

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
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compensates a compressed model into a new directory, with `compensation.json`, and returns what that says.

    Args:
        source: a directory that eckart wrote.
        against: the model that was compressed; see `eckart.models.transformers.load_model`.
        out: the directory to make. It appears whole or not at all.
        rank, metric, allocation, samples, length, seed: see `eckart.jobs.compensate.run.compensate`.
        texts: calibration and evaluation.
        cache: directory of statistics; None for the user's.
        memory: bytes the statistics may take in one pass; None for half of what is free.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    clock = time.perf_counter()
    seconds: dict[str, float] = {}

    def lap(phase: str) -> None:
        nonlocal clock
        seconds[phase], clock = time.perf_counter() - clock, time.perf_counter()

    metric = metric_for(metric, allocation)
    check_sampling(samples, length, seed)
    check_target(Path(out))
    cache = cache or cache_directory()
    text, evaluation_text = read_texts(texts)
    assert text is not None
    progress("load", 0, 2)
    model, tokenizer = hf.load_model(source)
    progress("load", 1, 2)
    dense, _ = hf.load_model(against)
    unfuse(dense)
    progress("load", 2, 2)
    check_length(model, max(length, texts.eval_length if evaluation_text is not None else 0))
    uniform_ranks(find_places(model, dense), rank)
    held_out = None
    if evaluation_text is not None:
        held_out = sequences(tokenizer, evaluation_text, texts.eval_length, texts.eval_samples, seed)
    lap("load")
    size = samples, length, seed
    tokens = calibration_tokens(texts.calibration, text, dense, tokenizer, *size, cache, progress)
    warnings = [] if held_out is None else check_overlap(tokens, held_out, texts)
    lap("calibration")
    before = share(model)
    result = compensate(
        model,
        dense,
        rank,
        metric=metric,
        allocation=allocation,
        calibration=tokens,
        seed=seed,
        cache=cache,
        memory=memory_available() // 2 if memory is None else memory,
        progress=progress,
    )
    lap("compensate")
    quality = None
    if held_out is not None:
        measured = []
        for i, each in enumerate((before, model)):
            measured.append(evaluate(each, held_out, dense, micro_batch=4))
            progress("evaluate", i + 1, 2)
        quality = {"text": texts.evaluation, "tokens": measured[0].tokens, "dense": _quality(measured[0].reference)}
        quality |= {"before": _quality(measured[0]), "after": _quality(measured[1])}
    lap("evaluate")
    with new_directory(Path(out)) as partial:
        hf.write_model(model, tokenizer, partial)
        report = {
            "eckart": __version__,
            "model": source,
            "against": against,
            "rank": rank,
            "metric": metric,
            "allocation": allocation,
            "seed": seed,
            "calibration": {"text": texts.calibration, **result.calibration},
            "size": {
                which: {"parameters": model_cost(each)["parameters"], "bytes": model_bytes(each)}
                for which, each in (("dense", dense), ("before", before), ("after", model))
            },
            "quality": quality,
            "matrices": [{"name": name, **asdict(added)} for name, added in result.added.items()],
            "seconds": seconds,
            "warnings": warnings + result.warnings,
        }
        write_json(report, partial / COMPENSATION)
    return report


def _quality(measured: Evaluation | None) -> dict[str, Any]:
    assert measured is not None
    quality: dict[str, Any] = {"perplexity": measured.perplexity, "stderr": measured.stderr}
    return quality if measured.kl is None else {**quality, "kl": measured.kl, "top1_agreement": measured.agreement}
