"""The job of `eckart diagnose`: the directory of a model or an adapter in, `diagnosis.json` out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from eckart.errors import Refused
from eckart.jobs.adapt.files import ADAPTER
from eckart.jobs.adapt.load import load_adapter
from eckart.jobs.calibration import check_sampling, text_of
from eckart.jobs.diagnose.cost import check_measure
from eckart.jobs.diagnose.report import as_report
from eckart.jobs.diagnose.run import diagnose
from eckart.jobs.evaluate.quality import check_length
from eckart.jobs.workspace import workspace
from eckart.machine import memory_available
from eckart.models import transformers as hf
from eckart.progress import Progress, silent
from eckart.report.html import render, to_json
from eckart.statistics import cache_directory
from eckart.texts.sequences import sequences

DIAGNOSIS = "diagnosis.json"
LOST = 0.1
"""Of an adapter's path in the merging, relative: more of it gets a warning."""


def diagnose_directory(
    source: str,
    *,
    against: str | None = None,
    text: str | None = None,
    measure: Sequence[float] = (),
    out: str | Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    samples: int = 16,
    length: int = 256,
    seed: int = 0,
    cache: Path | None = None,
    memory: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Diagnoses a model, writes `diagnosis.json` into a new directory if one is named, and returns what it says.

    Args:
        source: see `eckart.models.transformers.load_model`; or the directory of an adapter, eckart's or PEFT's, of
            which `against` is the base.
        against: the model to compare with.
        text: file or name of a text for hidden states and for the curves of what compressing would cost; None for none.
        measure: see `eckart.diagnose`.
        out: the directory to make. It appears whole or not at all.
        include, exclude: see `eckart.diagnose`.
        samples: sequences of the text.
        length: tokens in each.
        seed: of everything random.
        cache: directory of statistics; None for the user's.
        memory: bytes the statistics may take in one pass; None for half of what is free.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    clock = time.perf_counter()
    check_sampling(samples, length, seed)
    check_measure(measure, 0 if text is None else samples)
    with nullcontext() if out is None else workspace(out) as work:
        body = None if text is None else text_of(text)
        progress("load", 0, 1)
        model, base, tokenizer, warnings = load_models(source, against)
        progress("load", 1, 1)
        tokens = None
        if body is not None:
            check_length(model, length)
            tokens = sequences(tokenizer, body, length, samples, seed)
        found = diagnose(
            model,
            against=base,
            tokens=tokens,
            measure=measure,
            include=include,
            exclude=exclude,
            seed=seed,
            cache=cache or cache_directory(),
            memory=memory_available() // 2 if memory is None else memory,
            progress=progress,
        )
        found.warnings[:0] = warnings
        read = 0 if tokens is None else tokens.numel()
        report = as_report(found, source, against, text, read, seed, time.perf_counter() - clock)
        if work is not None:
            partial = work.begin()
            (partial / DIAGNOSIS).write_text(to_json(report, indent=1) + "\n", encoding="utf-8")
            (partial / "report.html").write_text(render(report), encoding="utf-8")
    return report


def load_models(source: str, against: str | None) -> tuple[nn.Module, nn.Module | None, Any, list[str]]:
    """The model, what it is compared with, the tokenizer, and warnings; an adapter is merged into a copy of its base.

    Raises:
        Refused: what cannot be read safely, an adapter without its base, or one that does not fit it.
    """
    base = None if against is None else hf.load_model(against)[0]
    if not any((Path(source) / file).is_file() for file in ("adapter_config.json", ADAPTER)):
        model, tokenizer = hf.load_model(source)
        return model, base, tokenizer, []
    if against is None:
        raise Refused(f"{source} is an adapter: name its base with --against")
    merged, tokenizer = hf.load_model(against)
    adapter = load_adapter(merged, source)
    errors = adapter.merge()
    adapter.remove()
    lost = {name: error for name, error in errors.items() if error > LOST}
    warnings = []
    if lost:
        warnings.append(
            f"merging lost up to {max(lost.values()):.0%} of what the adapter adds to {len(lost)} matrices, "
            f"{next(iter(lost))} among them: this is not quite what it does beside them"
        )
    return merged.eval(), base, tokenizer, warnings
