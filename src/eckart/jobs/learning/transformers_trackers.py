"""What follows a run from outside: TensorBoard, Weights & Biases, MLflow, by the callbacks of transformers' Trainer."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from eckart.errors import Refused
from eckart.jobs.learning.loop import Training


class Told:
    """Tells trackers by name; one that fails is told nothing more, and training goes on.

    Attributes:
        trackers: those that are told, by name; each is called with the step and its numbers.
        warnings: which failed, when and how.
    """

    def __init__(self) -> None:
        self.trackers: dict[str, Callable[[int, Mapping[str, float]], None]] = {}
        self.warnings: list[str] = []

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                tracker(step, numbers)
            except Exception as error:  # noqa: BLE001 - whatever a service or its package raises
                del self.trackers[name]
                self.failed(name, f"at step {step}", error)

    def failed(self, name: str, when: str, error: Exception) -> None:
        """Warns, now and in `warnings`."""
        text = f"report-to {name} failed {when} and is told nothing more: {type(error).__name__}: {error}"
        self.warnings.append(text)
        warnings.warn(text, stacklevel=3)


@contextmanager
def following(names: Sequence[str], out: str | Path, training: Training, model: nn.Module) -> Iterator[Told]:
    """What to tell of each step, to every tracker that is named; their runs begin here and end with the block.

    A tracker that fails once training runs does not end it: it is told nothing more, which is a warning.

    Args:
        names: transformers' words for trackers, such as "tensorboard", "wandb", "mlflow"; see `check_trackers`.
        out: the directory that is made; files of trackers lie in `<out>.tracked`, unless their own variables of the
            environment say otherwise.
        training: what they show of the run.
        model: what trains.

    Raises:
        Refused: see `check_trackers`; or one fails as it begins.
    """
    told = Told()
    if not names:
        yield told
        return
    found = check_trackers(names)
    from transformers import TrainerControl, TrainerState, TrainingArguments

    place = f"{Path(out)}.tracked"
    arguments = TrainingArguments(
        place,
        run_name=Path(out).name,
        report_to=list(names),
        max_steps=training.steps,
        learning_rate=training.rate,
        per_device_train_batch_size=training.batch,
        weight_decay=training.decay,
        max_grad_norm=training.clip,
        eval_steps=training.every,
        seed=training.seed,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, training.steps // 10),
        use_cpu=True,
    )
    # The CPU is only said so that no device is looked for: the model is where it is.
    state, control = TrainerState(max_steps=training.steps), TrainerControl()
    begun: dict[str, Any] = {}
    try:
        for name, entry in found.items():
            tracker = entry()
            try:
                tracker.on_train_begin(arguments, state, control, model=model)
            except Exception as error:
                raise Refused(f"report-to {name} failed as it began: {type(error).__name__}: {error}") from error
            begun[name] = tracker

            def tell(step: int, numbers: Mapping[str, float], tracker: Any = tracker) -> None:
                state.global_step = step
                tracker.on_log(arguments, state, control, logs=dict(numbers), model=model)

            told.trackers[name] = tell
        yield told
    finally:
        for name, tracker in begun.items():
            try:
                tracker.on_train_end(arguments, state, control, model=model, processing_class=None)
            except Exception as error:  # noqa: BLE001
                told.failed(name, "as it ended", error)


def check_trackers(names: Sequence[str]) -> dict[str, Any]:
    """The classes of trackers, by name.

    Raises:
        Refused: transformers knows none of that name, or the package that it needs is not installed.
    """
    if not names:
        return {}
    if importlib.util.find_spec("accelerate") is None:
        raise Refused(f"report-to {names[0]} needs accelerate, which is not installed: pip install accelerate")
    from transformers.integrations import integration_utils

    KNOWN = integration_utils.INTEGRATION_TO_CALLBACK
    if unknown := [name for name in names if name not in KNOWN]:
        raise Refused(f"transformers has no tracker {unknown[0]!r}: it has {', '.join(sorted(KNOWN))}")
    for name in names:
        # Asked before one is made: what is left of a half-made MLflowCallback prints a traceback of its own.
        there = getattr(integration_utils, f"is_{name}_available", None)
        if there is not None and not there():
            raise Refused(f"report-to {name} needs a package that is not installed: pip install {name}")
        try:
            KNOWN[name]()
        except (RuntimeError, ImportError) as error:
            raise Refused(f"report-to {name}: {error}") from error
    return {name: KNOWN[name] for name in names}  # one that is said twice would be told twice
