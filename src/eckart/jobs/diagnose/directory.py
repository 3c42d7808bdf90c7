"""The job of `eckart diagnose`: the directory of a model or an adapter in, `diagnosis.json` out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from eckart.errors import Refused
from eckart.jobs.adapt.load import is_adapter, load_adapter
from eckart.jobs.calibration import body_of, check_sampling
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.diagnose.cost import METHOD, check_measure
from eckart.jobs.diagnose.report import as_report
from eckart.jobs.diagnose.run import diagnose
from eckart.jobs.evaluate.quality import check_length
from eckart.jobs.material import Size, calibration_of
from eckart.jobs.texts import Texts, options_of
from eckart.jobs.workspace import workspace
from eckart.machine import memory_available
from eckart.models import transformers as hf
from eckart.models.dense import densified
from eckart.models.layers import is_compressed
from eckart.models.sites import find_sites, matches
from eckart.models.tasks import task_of
from eckart.progress import Progress, silent
from eckart.report.command import changed, changed_from, command_words
from eckart.report.html import render, to_json
from eckart.statistics import cache_directory

DIAGNOSIS = "diagnosis.json"
OTHER_TEXT = "wikipedia"
"""To judge a compression by that is calibrated on the text which does so by default."""
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
    device: str = "cpu",
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
        device: where the models are run, see `eckart.machine.device_named`.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written.
    """
    clock = time.perf_counter()
    told: dict[str, Any] = {"against": against, "include": tuple(include), "exclude": tuple(exclude), "text": text}
    told |= {"samples": samples, "length": length, "seed": seed, "device": device}
    command = repeating(source, told, measure, memory)
    check_sampling(samples, length, seed)
    check_measure(measure, 0 if text is None else samples)
    with nullcontext() if out is None else workspace(out) as work:
        body = None if text is None else body_of(text)
        progress("load", 0, 1)
        loaded, base, warnings = load_models(source, against, device)
        model = loaded.model
        progress("load", 1, 1)
        read = None
        if text is not None and body is not None:
            if task_of(model).reads == ("text",):
                check_length(model, length)
            read = calibration_of(text, body, loaded, Size(samples, length, seed))
        found = diagnose(
            model,
            against=base,
            tokens=None if read is None else read.tokens if task_of(model).writes else read.batches,
            measure=measure,
            include=include,
            exclude=exclude,
            seed=seed,
            cache=cache or cache_directory(),
            memory=memory_available() // 2 if memory is None else memory,
            progress=progress,
        )
        found.warnings[:0] = warnings
        curves = text if any("curve" in row for row in found.rows) and not is_adapter(source) else None
        names = (
            ()
            if curves is None
            else [name for site in find_sites(densified(model)) for name in (site.name, *site.tied)]
        )
        taken = any(map(is_compressed, model.modules()))  # a compression would leave them as they are
        compress = () if curves is None or taken else compressing(source, told, curves, names)
        seconds = time.perf_counter() - clock
        report = as_report(
            found, source, against, text, 0 if read is None else read.info["tokens"], seed, seconds, command, compress
        )
        if work is not None:
            partial = work.begin()
            (partial / DIAGNOSIS).write_text(to_json(report, indent=1) + "\n", encoding="utf-8")
            (partial / "report.html").write_text(render(report), encoding="utf-8")
    return report


def repeating(source: str, told: Mapping[str, object], measure: Sequence[float], memory: int | None) -> list[str]:
    """The words of the command that repeats a diagnosis, but for its place."""
    sizes = ",".join(map(str, measure)) or None
    gigabytes = None if memory is None else memory / 1e9
    asked = {**changed_from(diagnose_directory, told), "measure": sizes, "memory": gigabytes}
    return command_words("diagnose", [source], asked)


def compressing(source: str, told: Mapping[str, Any], text: str, names: Sequence[str]) -> list[str]:
    """The words of the command whose cost the curves foretell: the same matrices, calibrated on the same text.

    What is calibrated on the text for evaluation has to be judged by another. A diagnosis looks at embeddings and heads
    too: patterns of those alone mean nothing to a compression, which takes none of the matrices but those of `names`.
    """
    apt: dict[str, Any] = {
        kind: tuple(pattern for pattern in told[kind] if any(matches(pattern, name) for name in names))
        for kind in ("include", "exclude")
    }
    asked = Recipe(METHOD, **apt, samples=told["samples"], length=told["length"], seed=told["seed"])
    texts = Texts(calibration=text, evaluation=OTHER_TEXT if text == Texts.evaluation else Texts.evaluation)
    return command_words("compress", [source], {**changed(asked), "keep": None, **options_of(texts)})


def load_models(source: str, against: str | None, device: str = "cpu") -> tuple[hf.Loaded, nn.Module | None, list[str]]:
    """The model, what it is compared with, and warnings; an adapter is merged into a copy of its base.

    Raises:
        Refused: what cannot be read safely, an adapter without its base, or one that does not fit it.
    """
    for each in (source, against):
        if each is not None and not is_adapter(each):
            hf.check_source(each)
    if not is_adapter(source):
        return hf.load(source, device=device), None if against is None else hf.load(against, device=device).model, []
    if against is None:
        raise Refused(f"{source} is an adapter: name its base with --against")
    base = hf.load(against, device=device).model
    merged = hf.load(against, device=device)
    adapter = load_adapter(merged.model, source)
    errors = adapter.merge()
    adapter.remove()
    lost = {name: error for name, error in errors.items() if error > LOST}
    warnings = []
    if lost:
        warnings.append(
            f"merging lost up to {max(lost.values()):.0%} of what the adapter adds to {len(lost)} matrices, "
            f"{next(iter(lost))} among them: this is not quite what it does beside them"
        )
    merged.model.eval()
    return merged, base, warnings
