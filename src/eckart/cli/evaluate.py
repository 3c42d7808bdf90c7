"""`eckart evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from eckart._version import __version__
from eckart.cli import options as o
from eckart.cli.options import Model, NoSpeed, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show
from eckart.jobs.calibration import text_of
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.evaluate import quality
from eckart.jobs.evaluate.quality import check_length, quality_of
from eckart.jobs.evaluate.speed import speed, speed_lengths, weight_bytes
from eckart.jobs.texts import Texts
from eckart.machine import peak_rss_bytes
from eckart.models.transformers import check_source, load_model
from eckart.report import as_json
from eckart.texts.sequences import sequences


@o.taking(talk=o.NO_JSON)
def evaluate(
    model: Model,
    /,
    *,
    text: Annotated[str, Parameter(help="file or name of a text", group=o.DATA)] = Texts.evaluation,
    against: Annotated[
        str | None,
        Parameter(help="dense model for the divergence and the agreement", group=o.WHAT),
    ] = None,
    samples: Annotated[int, Parameter(help="sequences of the text", group=o.DATA)] = Texts.eval_samples,
    length: Annotated[int, Parameter(help="tokens in each", group=o.DATA)] = Texts.eval_length,
    no_speed: NoSpeed = False,
    seed: Annotated[int, Parameter(help="of the choice of sequences", group=o.RUN)] = Recipe.seed,
    talk: Talk,
) -> int:
    """Prints perplexity, distance to a dense model, speed and size as JSON."""
    body = text_of(text)
    for each in filter(None, (model, against)):
        check_source(each)
    loaded, tokenizer = load_model(model)
    check_length(loaded, length)
    reference = load_model(against)[0] if against else None
    held_out = sequences(tokenizer, body, length, samples, seed)
    with bars(talk) as progress:
        result = quality.evaluate(
            loaded, held_out, reference, micro_batch=4, on_progress=lambda d, n: progress("evaluate", d, n)
        )
    report: dict[str, Any] = {"eckart": __version__, "model": model, "quality": as_json(quality_of(result, text))}
    if not no_speed:
        report["speed"] = speed(loaded, **speed_lengths(loaded))
    if Path(model).is_dir():
        report["bytes"] = weight_bytes(model)
    report["memory"] = {"peak_rss_bytes": peak_rss_bytes()}
    show(Talk(json=True), report, [])
    return 0
