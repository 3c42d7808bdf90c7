"""Training an adapter in a plain loop: its checkpoints, going on from one, and keeping the best."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart._version import __version__
from eckart.errors import Refused, check_types
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.jobs.adapt.adapter import Adapter
from eckart.ops.wide_products import WideProducts
from eckart.progress import Progress, silent
from eckart.statistics.batches import beside
from eckart.statistics.gradients import labels_in
from eckart.texts.examples import collate

Together = Callable[[Sequence[Any]], Mapping[str, Tensor]]
"""Makes a batch of some examples."""


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        steps: of the optimizer, AdamW.
        rate: largest learning rate; it rises linearly over the first tenth of the steps and falls as a half cosine.
        batch: examples in a step.
        decay: weight decay.
        clip: norm that gradients are cut to.
        every: steps between judgements on validation data, and between checkpoints.
        seed: of the order of the examples.
    """

    steps: int = 200
    rate: float = 1e-3
    batch: int = 4
    decay: float = 0.0
    clip: float = 1.0
    every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.steps < 1 or self.batch < 1 or self.every < 1:
            raise Refused(f"steps={self.steps}, batch={self.batch} and every={self.every} must be at least 1")
        if not (0 < self.rate < math.inf and 0 <= self.decay < math.inf and self.clip > 0):
            raise Refused(f"rate={self.rate} and clip={self.clip} must be above 0, decay={self.decay} at least 0")

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2


@dataclass
class Trained:
    """What the training did.

    Attributes:
        losses: mean loss of the examples of each step, without the regulariser.
        validation: (step, mean loss over validation tokens), from before the first step on.
        best: the step whose values were kept.
    """

    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best: int = 0


def train(
    adapter: Adapter,
    examples: Sequence[Any],
    validation: Sequence[Any],
    training: Training,
    *,
    together: Together = collate,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Trains an adapter and leaves it with the values that did best on validation data.

    Args:
        adapter: active; its model is called as `model(**batch)` and returns a `loss`, a mean over labels.
        examples: to learn.
        validation: to judge by; where there is none, the last values are kept.
        training: how.
        together: makes of some examples a batch with labels.
        checkpoint: a file that is written every `training.every` steps; where it is there, training goes on from it.
        progress: told of the phase "train".

    Raises:
        Refused: the loss is not finite; what the checkpoint holds is from before that.
    """
    model, order = adapter.model, Order(len(examples), training.batch, training.seed)
    parameters = adapter.trainable_parameters()
    optimizer = torch.optim.AdamW(parameters, lr=training.rate, weight_decay=training.decay)
    adapter.plan(training.steps)
    trained, best = Trained(), values(adapter)
    if checkpoint is not None and checkpoint.is_file():
        best = read_checkpoint(checkpoint, adapter, optimizer, trained)
    elif validation:
        trained.validation.append((0, judged(model, validation, training.batch, together)))
    for step in range(len(trained.losses), training.steps):
        progress("train", step, training.steps)
        for group in optimizer.param_groups:
            group["lr"] = training.rate_at(step)
        optimizer.zero_grad()
        with WideProducts():
            loss = loss_of(model, together([examples[i] for i in order.of(step)]))
        total = loss + adapter.regulariser()
        if not torch.isfinite(total):
            kept = f"; {checkpoint} has the last good values: go on from it" if checkpoint and step else ""
            raise Refused(
                f"the loss of step {step + 1} is {float(total.detach())}: lower the rate of {training.rate}{kept}"
            )
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, training.clip)
        optimizer.step()
        adapter.step()
        trained.losses.append(float(loss.detach()))
        if (step + 1) % training.every == 0 or step + 1 == training.steps:
            if validation:
                now = judged(model, validation, training.batch, together)
                if math.isfinite(now) and now <= min(loss for _, loss in trained.validation):
                    best, trained.best = values(adapter), step + 1
                trained.validation.append((step + 1, now))
            if checkpoint is not None:
                write_checkpoint(checkpoint, adapter, optimizer, trained, best)
    if validation:
        restore(adapter, best)
    progress("train", training.steps, training.steps)
    return trained


def loss_of(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """What a model says that it loses on a batch, which is moved to it."""
    inputs = beside(model, batch)
    assert not isinstance(inputs, Tensor)
    loss: Tensor = model(**inputs).loss
    return loss


class Order:
    """Which examples each step learns: every one once before any is learned again, in a new order each time."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if count < 1:
            raise Refused("there are no examples to learn")
        self.count, self.batch, self.seed = count, min(batch, count), seed
        self._round = (-1, [0])

    def of(self, step: int) -> list[int]:
        return [self._at(i) for i in range(step * self.batch, (step + 1) * self.batch)]

    def _at(self, position: int) -> int:
        number, place = divmod(position, self.count)
        if self._round[0] != number:
            generator = torch.Generator().manual_seed(self.seed + number)
            self._round = number, torch.randperm(self.count, generator=generator).tolist()
        return self._round[1][place]


@torch.no_grad()
def judged(model: nn.Module, examples: Sequence[Any], batch: int, together: Together) -> float:
    """The mean loss over all that is predicted of some examples, tokens or labels, nats."""
    training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for i in range(0, len(examples), batch):
        whole = together(examples[i : i + batch])
        count = labels_in(model, whole)
        with WideProducts():
            total += count * float(loss_of(model, whole)) if count else 0.0
        tokens += count
    model.train(training)
    return total / max(1, tokens)


def values(adapter: Adapter) -> dict[str, Tensor]:
    """A copy of all tensors of the paths: what trains, and indices that a schedule moves."""
    return {f"{n}/{k}": t.detach().clone() for n, path in adapter.paths.items() for k, t in path.state_dict().items()}


@torch.no_grad()
def restore(adapter: Adapter, tensors: Mapping[str, Tensor]) -> None:
    """Puts `values` back."""
    for name, path in adapter.paths.items():
        for leaf, tensor in path.state_dict().items():
            tensor.copy_(tensors[f"{name}/{leaf}"])


def write_checkpoint(
    file: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, trained: Trained, best: Mapping[str, Tensor]
) -> None:
    """Everything that training needs to go on to the same end, in one file that is whole or absent."""
    tensors = {f"now/{key}": value for key, value in values(adapter).items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors |= {f"schedule/{key}": value for key, value in adapter.schedule_state().items()}
    history = {"losses": trained.losses, "validation": trained.validation, "best": trained.best}
    unique = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_safetensors(unique, file, {STORED: __version__, "history": json.dumps(history), **sealed(unique)})


def read_checkpoint(
    file: Path, adapter: Adapter, optimizer: torch.optim.Optimizer, trained: Trained
) -> dict[str, Tensor]:
    """Sets adapter, optimizer and history to those of a checkpoint, and returns the best values so far.

    Raises:
        Refused: a file that is damaged or of another adapter.
    """
    try:
        tensors, metadata = read_safetensors(file)
        history: dict[str, Any] = json.loads(metadata["history"])
        part = {
            kind: {key.removeprefix(f"{kind}/"): value for key, value in tensors.items() if key.startswith(f"{kind}/")}
            for kind in ("now", "best", "optimizer", "schedule")
        }
        restore(adapter, part["now"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in part["optimizer"].items():
            number, _, word = key.partition("/")
            state.setdefault(int(number), {})[word] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        trained.losses, trained.best = list(history["losses"]), int(history["best"])
        trained.validation = [(int(step), float(loss)) for step, loss in history["validation"]]
        adapter.resume(len(trained.losses), part["schedule"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise Refused(f"{file} is no checkpoint of this training: {error}") from error
    return part["best"]
