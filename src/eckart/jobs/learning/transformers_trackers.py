"""What follows a run from outside: TensorBoard, Weights & Biases, MLflow, by the callbacks of transformers' Trainer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from eckart.errors import Refused
from eckart.jobs.learning.loop import Tell, Training, untold


@contextmanager
def following(names: Sequence[str], out: str | Path, training: Training, model: nn.Module) -> Iterator[Tell]:
    """What to tell of each step, to every tracker that is named; their runs begin here and end with the block.

    Args:
        names: transformers' words for trackers, such as "tensorboard", "wandb", "mlflow"; see `check_trackers`.
        out: the directory that is made; files of trackers lie in `<out>.tracked`, unless their own variables of the
            environment say otherwise.
        training: what they show of the run.
        model: what trains.

    Raises:
        Refused: see `check_trackers`.
    """
    if not names:
        yield untold
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
    trackers = [each() for each in found]

    def tell(step: int, numbers: Mapping[str, float]) -> None:
        state.global_step = step
        for tracker in trackers:
            tracker.on_log(arguments, state, control, logs=dict(numbers), model=model)

    begun = []
    try:
        for tracker in trackers:
            tracker.on_train_begin(arguments, state, control, model=model)
            begun.append(tracker)
        yield tell
    finally:
        for tracker in begun:
            tracker.on_train_end(arguments, state, control, model=model, processing_class=None)


def check_trackers(names: Sequence[str]) -> list[Any]:
    """The classes of trackers.

    Raises:
        Refused: transformers knows none of that name, or the package that it needs is not installed.
    """
    if not names:
        return []
    if importlib.util.find_spec("accelerate") is None:
        raise Refused(f"report-to {names[0]} needs accelerate, which is not installed: pip install accelerate")
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK as KNOWN

    if unknown := [name for name in names if name not in KNOWN]:
        raise Refused(f"transformers has no tracker {unknown[0]!r}: it has {', '.join(sorted(KNOWN))}")
    names = list(dict.fromkeys(names))  # one that is said twice would be told twice
    for name in names:
        try:
            KNOWN[name]()
        except (RuntimeError, ImportError) as error:
            raise Refused(f"report-to {name}: {error}") from error
    return [KNOWN[name] for name in names]
