"""The job of `eckart adapt`: a model and data in, a directory with an adapter out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eckart._version import __version__
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import TRAINING, write_adapter
from eckart.jobs.adapt.run import adapt
from eckart.jobs.adapt.train import train
from eckart.jobs.calibration import text_of
from eckart.jobs.evaluate.quality import Evaluation, check_length, evaluate
from eckart.jobs.learning.lessons import check_data, contents, lessons_of
from eckart.jobs.learning.loop import Training
from eckart.jobs.learning.transformers_trackers import check_trackers, following
from eckart.jobs.workspace import workspace
from eckart.models import transformers as hf
from eckart.models.tasks import task_of
from eckart.progress import Progress, silent
from eckart.report import as_json, write_report
from eckart.report.command import changed, command_words, text_name
from eckart.report.training import (
    AdaptedMatrix,
    Beginning,
    Course,
    Examples,
    Forgetting,
    Judgement,
    Perplexity,
    TrainingReport,
    TrainingSeconds,
)
from eckart.statistics import cache_directory
from eckart.statistics.cache import finite_weights
from eckart.statistics.fingerprint import data_fingerprint, model_fingerprint
from eckart.texts.sequences import sequences

CHECKPOINT = "checkpoint.safetensors"
"""Among what an interrupted run leaves finished."""
STARTERS = 16
"""Batches that an adapter which looks at data gets to see."""


@dataclass(frozen=True)
class Request:
    """What to train.

    Attributes:
        method, rank, alpha, name, include, exclude: see `eckart.adapt`.
        data: a file or folder, see `eckart.jobs.learning.lessons.lessons_of`.
        validation: another one; "" for a tenth of `data`.
        length: tokens of an example at most.
        text: on which the perplexity before and after is measured, for what was forgotten; "" for none.
    """

    data: str
    method: str = "lora"
    rank: int = 16
    alpha: float | None = None
    name: str = "default"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    validation: str = ""
    length: int = 256
    text: str = "news"


def adapt_directory(
    source: str,
    out: str | Path,
    request: Request,
    training: Training,
    *,
    resume: bool = False,
    device: str = "cpu",
    report_to: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Trains an adapter into a new directory, with `training.json` and `report.html`, and returns what the first says.

    Args:
        source: see `eckart.models.transformers.load_model`.
        out: the directory to make. It appears whole or not at all; work in progress is in `<out>.partial`.
        request: what to train.
        training: how. An interrupted run may go on with another rate.
        resume: go on with the work an interrupted run left.
        device: where the model is run, see `eckart.machine.device_named`.
        report_to: names of trackers that follow the losses, see `eckart.jobs.learning.transformers_trackers`.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written; or a loss that is not finite,
            after which `resume` goes on from the last good checkpoint.
    """
    card = ADAPTERS.find(request.method)
    asked = {"model": source, "request": asdict(request), "training": {**asdict(training), "rate": None}}
    check_trackers(report_to)
    with workspace(out, asked, resume) as work:
        for file in filter(None, (request.data, request.validation)):
            check_data(file)
        text = text_of(request.text) if request.text else None
        progress("load", 0, 1)
        loaded = hf.load(source, device=device)
        model, task = loaded.model, task_of(loaded.model)
        progress("load", 1, 1)
        if task.reads == ("text",):
            check_length(model, request.length)
        finite_weights({"": model})
        lessons = lessons_of(loaded, request.data, request.validation, request.length, training.seed)
        warnings, held_out = [], None
        if text is not None and task.writes:
            held_out = sequences(loaded.tokenizer, text, request.length, 16, training.seed)
        elif text is not None:
            warnings.append(f"what was forgotten is told by a perplexity, which {task.kind} has not: not measured")
        seen = lessons.batches(STARTERS, training.batch)
        partial = work.begin(
            {
                "weights": model_fingerprint(model),
                "examples": data_fingerprint(contents(lessons.learned)),
                "validation examples": data_fingerprint(contents(lessons.validation)),
                "text to measure what is forgotten": data_fingerprint([] if held_out is None else [held_out]),
            }
        )
        work.lap("load")
        before = None if held_out is None else evaluate(model, held_out, micro_batch=4)
        adapter = adapt(
            model,
            request.method,
            request.rank,
            name=request.name,
            alpha=request.alpha,
            include=request.include,
            exclude=request.exclude,
            calibration=seen if card.reads_data else None,
            seed=training.seed,
            cache=cache_directory(),
            progress=progress,
        )
        work.lap("start")
        checkpoint = work.finished / CHECKPOINT
        with following(report_to, out, training, model) as tell:
            trained = train(
                adapter,
                lessons.learned,
                lessons.validation,
                training,
                together=lessons.together,
                checkpoint=checkpoint,
                progress=progress,
                tell=tell,
            )
        warnings += tell.warnings
        work.lap("train")
        after = None if held_out is None else evaluate(model, held_out, micro_batch=4)
        report = as_json(
            TrainingReport(
                eckart=__version__,
                model=str(Path(source).resolve()) if Path(source).exists() else source,
                data=request.data,
                method=request.method,
                rank=request.rank,
                alpha=request.alpha,
                name=request.name,
                include=request.include,
                exclude=request.exclude,
                length=request.length,
                text=request.text,
                training=Course(**asdict(training)),
                examples=Examples(learned=len(lessons.learned), validation=len(lessons.validation)),
                parameters=sum(p.numel() for p in adapter.trainable_parameters()),
                start=beginning(adapter),
                loss=trained.losses,
                validation=[Judgement(step=step, loss=loss) for step, loss in trained.validation],
                best_step=trained.best,
                forgetting=forgetting(request.text, before, after),
                seconds=TrainingSeconds(**work.lap.seconds),
                matrices=[
                    AdaptedMatrix(name=name, rank=rank, error=adapter.errors[name])
                    for name, rank in adapter.ranks.items()
                ],
                command=repeating(source, request, training, device, report_to),
                coverage=adapter.coverage,
                warnings=[*warnings, *adapter.warnings, *adapter.moved()],
            )
        )
        write_adapter(adapter, partial)
        write_report(report, partial, TRAINING)
    return report


def repeating(
    source: str, request: Request, training: Training, device: str = "cpu", report_to: Sequence[str] = ()
) -> list[str]:
    """The words of the command that repeats a training, but for its place."""
    told = changed(request)
    if "text" in told:
        told["eval"] = text_name(request.text)
        del told["text"]
    own = {"device": None if device == "cpu" else device, "report-to": report_to or None}
    return command_words("adapt", [source], {**told, **changed(training), **own})


def beginning(adapter: Adapter) -> Beginning:
    """What making an adapter took."""
    largest = max(adapter.errors.values(), default=0.0)
    return Beginning(seconds=adapter.seconds, peak_rss_bytes=adapter.peak_bytes, largest_error=largest)


def forgetting(text: str, before: Evaluation | None, after: Evaluation | None) -> Forgetting | None:
    """What training took from the model on another text; None where that was not measured."""
    if before is None or after is None:
        return None
    found = [Perplexity(perplexity=each.perplexity, stderr=each.stderr) for each in (before, after)]
    return Forgetting(text=text, before=found[0], after=found[1])
