"""`eckart evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from eckart._version import __version__
from eckart.cli import options as o
from eckart.cli.options import Device, NoSpeed, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show
from eckart.jobs.adapt.load import base_of_directory, is_adapter, load_adapter
from eckart.jobs.calibration import body_of
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.evaluate.judge import judged
from eckart.jobs.evaluate.quality import check_length
from eckart.jobs.evaluate.speed import speed, speed_lengths, weight_bytes
from eckart.jobs.material import Size, held_out_of
from eckart.jobs.texts import Texts
from eckart.machine import peak_rss_bytes
from eckart.models.tasks import task_of
from eckart.models.transformers import check_source, load
from eckart.report import as_json


@o.taking(talk=o.NO_JSON)
def evaluate(
    model: Annotated[str, Parameter(help="a local directory, an adapter, a GGUF file, a hub name, or smollm2")],
    /,
    *,
    text: Annotated[str, Parameter(help="file, folder or name of a text", group=o.DATA)] = Texts.evaluation,
    against: Annotated[
        str | None,
        Parameter(help="dense model to compare with", group=o.WHAT),
    ] = None,
    samples: Annotated[int, Parameter(help="sequences of the text", group=o.DATA)] = Texts.eval_samples,
    length: Annotated[int, Parameter(help="tokens in each", group=o.DATA)] = Texts.eval_length,
    device: Device = "cpu",
    no_speed: NoSpeed = False,
    seed: Annotated[int, Parameter(help="of the choice of sequences", group=o.RUN)] = Recipe.seed,
    talk: Talk,
) -> int:
    """Prints quality, distance to a dense model, speed and size as JSON; of an adapter beside its model."""
    body = body_of(text)
    base = base_of_directory(model) if is_adapter(model) else model
    for each in filter(None, (base, against)):
        check_source(each)
    loaded = load(base, device=device)
    if base != model:
        load_adapter(loaded.model, model)
    task = task_of(loaded.model)
    if task.reads == ("text",):
        check_length(loaded.model, length)
    reference = load(against, device=device).model if against else None
    held_out = held_out_of(text, body, loaded, Size(samples, length, seed), reference)
    with bars(talk) as progress:
        found = judged(loaded, reference, held_out, text, progress)
    report: dict[str, Any] = {"eckart": __version__, "model": model, "quality": as_json(found)}
    if base != model:
        report["base"] = base
    if not no_speed and task.writes:
        report["speed"] = speed(loaded.model, **speed_lengths(loaded.model))
    if Path(model).is_dir():
        report["bytes"] = weight_bytes(model)
    report["memory"] = {"peak_rss_bytes": peak_rss_bytes()}
    show(Talk(json=True), report, [])
    return 0
