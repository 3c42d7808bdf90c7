"""Training in a plain loop, whatever it is that learns: going on from a checkpoint, and keeping the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from eckart.errors import Refused, check_types
from eckart.jobs.learning.head_loss import without_logits
from eckart.ops.wide_products import WideProducts
from eckart.progress import Progress, silent
from eckart.statistics.batches import beside
from eckart.statistics.gradients import labels_in
from eckart.texts.examples import collate

Together = Callable[[Sequence[Any]], Mapping[str, Tensor]]
"""Makes a batch of some examples."""
Tell = Callable[[int, Mapping[str, float]], None]
"""Is told numbers of a step: `loss` and `learning_rate`, or `eval_loss`."""


def untold(step: int, numbers: Mapping[str, float]) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        steps: of the optimizer.
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


class Learner(Protocol):
    """What learns.

    Attributes:
        model: called as `model(**batch)`; returns a `loss`, a mean over labels.
        optimizer: of all that trains.
        keeps_best: whether the values that did best on validation data are those to keep; else the last ones are.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    keeps_best: bool

    def before_step(self) -> None:
        """Before the model computes."""

    def regulariser(self) -> Tensor | float:
        """What is added to the loss."""

    def after_backward(self) -> None:
        """Once gradients are there and cut."""

    def after_step(self) -> None:
        """Once the optimizer has moved what trains."""

    def values(self) -> dict[str, Tensor]:
        """A copy of all tensors that change."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts `values` back."""

    def schedule_state(self) -> dict[str, Tensor]:
        """What else is to be kept to go on."""

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Goes on behind so many steps with a `schedule_state`."""


class Checkpoint(Protocol):
    """Where a run is kept, to go on from; its text is how a message names it."""

    def there(self) -> bool:
        """Whether there is one."""

    def read(self, learner: Learner, trained: Trained) -> dict[str, Tensor]:
        """Sets learner and history to it, and returns the best values so far."""

    def write(self, learner: Learner, trained: Trained, best: Mapping[str, Tensor]) -> None:
        """Keeps one in the place of the last."""


def train(
    learner: Learner,
    examples: Sequence[Any],
    validation: Sequence[Any],
    training: Training,
    *,
    together: Together = collate,
    checkpoint: Checkpoint | None = None,
    progress: Progress = silent,
    tell: Tell = untold,
) -> Trained:
    """Trains, and leaves what learns with the values that did best on validation data where those are to be kept.

    A language model's loss is computed without its logits where that can be, see `without_logits`.

    Args:
        learner: what learns.
        examples: to learn.
        validation: to judge by; where there is none, the last values are kept.
        training: how; rates of the optimizer's groups keep their ratios.
        together: makes of some examples a batch with labels.
        checkpoint: written every `training.every` steps; where there is one, training goes on from it.
        progress: told of the phase "train".
        tell: told the losses of every step, once it is done.

    Raises:
        Refused: a loss or a gradient is not finite; what the checkpoint holds is from before that.
    """
    order = Order(len(examples), training.batch, training.seed)
    with without_logits(learner.model, together(examples[:1])):
        return _trained(learner, examples, order, validation, training, together, checkpoint, progress, tell)


def _trained(
    learner: Learner,
    examples: Sequence[Any],
    order: Order,
    validation: Sequence[Any],
    training: Training,
    together: Together,
    checkpoint: Checkpoint | None,
    progress: Progress,
    tell: Tell,
) -> Trained:
    model, optimizer = learner.model, learner.optimizer
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    largest = [float(group["lr"]) for group in optimizer.param_groups]
    trained, keeps = Trained(), bool(validation) and learner.keeps_best
    best, kept = learner.values() if keeps else {}, 0
    if checkpoint is not None and checkpoint.there():
        best = checkpoint.read(learner, trained)
        kept = len(trained.losses)
    elif validation:
        trained.validation.append((0, judged(model, validation, training.batch, together)))
        tell(0, {"eval_loss": trained.validation[0][1]})
    for step in range(len(trained.losses), training.steps):
        progress("train", step, training.steps)
        for group, rate in zip(optimizer.param_groups, largest, strict=True):
            group["lr"] = rate * (training.rate_at(step) / training.rate)
        learner.before_step()
        optimizer.zero_grad()
        with drawing(model, training.seed * 1_000_003 + step), WideProducts():
            loss = loss_of(model, together([examples[i] for i in order.of(step)]))
        total = loss + learner.regulariser()
        finite(total, f"the loss of step {step + 1}", step, training, checkpoint, kept)
        total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters, training.clip)
        finite(norm, f"the gradient of step {step + 1}", step, training, checkpoint, kept)
        learner.after_backward()
        optimizer.step()
        learner.after_step()
        trained.losses.append(float(loss.detach()))
        tell(step + 1, {"loss": trained.losses[-1], "learning_rate": training.rate_at(step)})
        if (step + 1) % training.every == 0 or step + 1 == training.steps:
            if validation:
                now = judged(model, validation, training.batch, together)
                finite(now, f"the validation loss behind step {step + 1}", step + 1, training, checkpoint, kept)
                if keeps and now <= min(loss for _, loss in trained.validation):
                    best, trained.best = learner.values(), step + 1
                trained.validation.append((step + 1, now))
                tell(step + 1, {"eval_loss": now})
            if checkpoint is not None:
                checkpoint.write(learner, trained, best)
                kept = step + 1
    if keeps:
        learner.restore(best)
    elif validation:
        trained.best = training.steps
    progress("train", training.steps, training.steps)
    return trained


def finite(
    number: Tensor | float, what: str, done: int, training: Training, checkpoint: Checkpoint | None, kept: int
) -> None:
    """Says how to go on where a number behind `done` steps is not finite; the checkpoint is of `kept` steps."""
    value = float(number.detach()) if isinstance(number, Tensor) else number
    if math.isfinite(value):
        return
    hint = ""
    if kept and kept < done:
        hint = f"; {checkpoint} has the good values of step {kept}: go on from it"
    elif kept:
        hint = f"; {checkpoint} has the values that gave this: begin anew, unless it comes of one batch alone"
    raise Refused(f"{what} is {value}: lower the rate of {training.rate}{hint}")


@contextmanager
def drawing(model: nn.Module, seed: int) -> Iterator[None]:
    """Inside, what a model draws (its dropout) follows from a seed; the generators of torch are left as they were."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    held = [device.index or 0] if device.type in ("cuda", "xpu") else []
    with torch.random.fork_rng(held, device_type=device.type if held else "cuda"):
        torch.manual_seed(seed % 2**63)
        yield


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
