"""The job of `eckart train`: a model or its configuration and data in, a trained model out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eckart._version import __version__
from eckart.errors import Refused, check_types
from eckart.jobs.learning.checkpoint import CheckpointFile
from eckart.jobs.learning.lessons import check_data, contents, lessons_of
from eckart.jobs.learning.loop import Trained, Training, train
from eckart.jobs.learning.transformers_trackers import check_trackers, following
from eckart.jobs.named import check_names, check_options, parsed
from eckart.jobs.reparametrize.run import Reparametrization, reparametrize
from eckart.jobs.train.learner import COMMON, GIVEN, Learning
from eckart.jobs.workspace import workspace
from eckart.machine import peak_rss_bytes
from eckart.models import transformers as hf
from eckart.models.from_scratch import from_scratch
from eckart.optim import OTHER
from eckart.optim.contract import OPTIMIZERS
from eckart.parametrizations.contract import PARAMETRIZATIONS
from eckart.progress import Progress, silent
from eckart.report import as_json, write_report
from eckart.report.command import changed, command_words
from eckart.report.learning import LearningReport
from eckart.report.training import Course, Examples, Judgement, TrainingSeconds
from eckart.statistics.cache import finite_weights
from eckart.statistics.fingerprint import data_fingerprint, model_fingerprint

REPORT = "train.json"
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Request:
    """What to train, and by what.

    Attributes:
        data: a file or folder to learn, see `eckart.jobs.learning.lessons.lessons_of`.
        validation: another one to judge by; "" for a tenth of `data`.
        optimizer: NAME, or NAME:OPTION=VALUE,...; it moves matrices, and AdamW the rest.
        other_rate: rate of AdamW for what is no hidden matrix; None for 0.001, or with `adamw` the rate.
        parametrization: NAME, or NAME:OPTION=VALUE,...: what trains in the places of matrices; "" for the matrices.
        include: patterns of names of matrices that are parametrized.
        exclude: patterns of those that are not.
        length: tokens of an example at most.
        scratch: draw the weights anew; MODEL is a directory with config.json and a tokenizer.
    """

    data: str
    validation: str = ""
    optimizer: str = "adamw"
    other_rate: float | None = None
    parametrization: str = ""
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    length: int = 256
    scratch: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if self.length < 2:
            raise Refused(f"length={self.length}: the first token is never predicted, so two are needed")
        if self.other_rate is not None and not 0 < self.other_rate < float("inf"):
            raise Refused(f"other_rate={self.other_rate} must be above zero")
        name, options = parsed(self.optimizer)
        entry = OPTIMIZERS.find(name).entry
        if not (isinstance(entry, type) and issubclass(entry, torch.optim.Optimizer)):
            raise Refused(f"{name} is no optimizer that moves a model's parameters one step: use it from Python")
        check_options(name, options, entry, GIVEN, COMMON)
        if self.parametrization:
            name, options = parsed(self.parametrization)
            check_names(name, options, PARAMETRIZATIONS.find(name).options)
        elif self.include or self.exclude:
            raise Refused(
                "include and exclude name matrices for a parametrization, and none is asked for: all of the model is "
                "trained; eckart adapt trains a few numbers beside some of its matrices"
            )


def train_directory(
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
    """Trains a model into a new directory, with `train.json` and `report.html`, and returns what the first says.

    Args:
        source: see `eckart.models.transformers.load_model`; with `request.scratch` see `from_scratch`.
        out: the directory to make. It appears whole or not at all; work in progress is in `<out>.partial`.
        request: what to train, and by what.
        training: how. An interrupted run may go on with another rate.
        resume: go on with the work an interrupted run left.
        device: where the model is run, see `eckart.machine.device_named`.
        report_to: names of trackers that follow the losses, see `eckart.jobs.learning.transformers_trackers`.
        progress: told of the phases.

    Raises:
        Refused: anything that cannot be done as asked, before anything is written; or a loss that is not finite,
            after which `resume` goes on from the last good checkpoint.
    """
    asked = {"model": source, "request": asdict(request), "training": {**asdict(training), "rate": None}}
    check_trackers(report_to)
    with workspace(out, asked, resume) as work:
        for file in filter(None, (request.data, request.validation)):
            check_data(file)
        progress("load", 0, 1)
        if request.scratch:
            loaded = from_scratch(source, training.seed, device=device)
        else:
            # Structures that train are in float32, whatever the checkpoint is in.
            loaded = hf.load(source, dtype=torch.float32 if request.parametrization else None, device=device)
        model = loaded.model
        progress("load", 1, 1)
        finite_weights({"": model})
        lessons = lessons_of(loaded, request.data, request.validation, request.length, training.seed)
        partial = work.begin(
            {
                "weights": model_fingerprint(model),
                "examples": data_fingerprint(contents(lessons.learned)),
                "validation examples": data_fingerprint(contents(lessons.validation)),
            }
        )
        work.lap("load")
        made = parametrized(model, request, training)
        optimizer, options = parsed(request.optimizer)
        other = request.other_rate or (training.rate if optimizer == "adamw" else float(OTHER["lr"]))
        learner = Learning(model, optimizer, options, training, made, other)
        work.lap("start")
        with following(report_to, out, training, model) as tell:
            trained = train(
                learner,
                lessons.learned,
                lessons.validation,
                training,
                together=lessons.together,
                checkpoint=CheckpointFile(work.finished / CHECKPOINT),
                progress=progress,
                tell=tell,
            )
        learner.warnings += tell.warnings
        learner.finish()
        work.lap("train")
        loaded.write(partial)
        seconds = TrainingSeconds(**work.lap.seconds)
        report = as_json(
            reported(source, request, training, device, report_to, learner, lessons, trained, made, seconds)
        )
        write_report(report, partial, REPORT)
    return report


def parametrized(model: nn.Module, request: Request, training: Training) -> Reparametrization | None:
    """The model with what is to train in the places of its matrices; None where nothing else is."""
    if not request.parametrization:
        return None
    name, options = parsed(request.parametrization)
    where = {"include": request.include, "exclude": request.exclude, "seed": training.seed}
    return reparametrize(model, name, **where, **options)  # type: ignore[arg-type]


def reported(
    source: str,
    request: Request,
    training: Training,
    device: str,
    report_to: Sequence[str],
    learner: Learning,
    lessons: Any,
    trained: Trained,
    made: Reparametrization | None,
    seconds: TrainingSeconds,
) -> LearningReport:
    """What `train.json` says."""
    left = [] if made is None else [f"{name} stays dense: {why}" for name, why in made.left.items()]
    own = {"device": None if device == "cpu" else device, "report-to": report_to or None}
    return LearningReport(
        eckart=__version__,
        model=source,
        scratch=request.scratch,
        data=request.data,
        optimizer=request.optimizer,
        parametrization=request.parametrization,
        length=request.length,
        training=Course(**asdict(training)),
        examples=Examples(learned=len(lessons.learned), validation=len(lessons.validation)),
        parameters=sum(learner.split.values()),
        moved_by=learner.split,
        optimizer_bytes=learner.state_bytes(),
        peak_rss_bytes=peak_rss_bytes(),
        loss=trained.losses,
        rate=[training.rate_at(step) for step in range(training.steps)],
        validation=[Judgement(step=step, loss=loss) for step, loss in trained.validation],
        spectra=learner.followed.spectra,
        best_step=trained.best,
        seconds=seconds,
        command=command_words("train", [source], {**changed(request), **changed(training), **own}),
        coverage=None if made is None else made.coverage,
        warnings=[*learner.warnings, *([] if made is None else made.warnings), *left],
    )
