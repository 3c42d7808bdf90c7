"""Training an adapter in a plain loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.learning.checkpoint import CheckpointFile
from eckart.jobs.learning.loop import Tell, Together, Trained, Training, untold
from eckart.jobs.learning.loop import train as learn
from eckart.progress import Progress, silent
from eckart.texts.examples import collate


class Adapting:
    """An adapter that learns, by AdamW."""

    keeps_best = True

    def __init__(self, adapter: Adapter, training: Training) -> None:
        self.adapter, self.model = adapter, adapter.model
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            adapter.trainable_parameters(), lr=training.rate, weight_decay=training.decay
        )
        adapter.plan(training.steps)

    def before_step(self) -> None:
        """Nothing."""

    def regulariser(self) -> Tensor | float:
        """The method's."""
        return self.adapter.regulariser()

    def after_backward(self) -> None:
        """Nothing."""

    def after_step(self) -> None:
        """What the method does once a step."""
        self.adapter.step()

    def values(self) -> dict[str, Tensor]:
        """A copy of all tensors of the paths: what trains, and indices that a schedule moves."""
        paths = self.adapter.paths.items()
        return {f"{n}/{k}": t.detach().clone() for n, path in paths for k, t in path.state_dict().items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts `values` back."""
        for name, path in self.adapter.paths.items():
            for leaf, tensor in path.state_dict().items():
                tensor.copy_(tensors[f"{name}/{leaf}"])

    def schedule_state(self) -> dict[str, Tensor]:
        """Of the method's schedule."""
        return self.adapter.schedule_state()

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Goes on with the schedule."""
        self.adapter.resume(done, state)


def train(
    adapter: Adapter,
    examples: Sequence[Any],
    validation: Sequence[Any],
    training: Training,
    *,
    together: Together = collate,
    checkpoint: Path | None = None,
    progress: Progress = silent,
    tell: Tell = untold,
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
        tell: told the losses of every step.

    Raises:
        Refused: the loss is not finite; what the checkpoint holds is from before that.
    """
    return learn(
        Adapting(adapter, training),
        examples,
        validation,
        training,
        together=together,
        checkpoint=None if checkpoint is None else CheckpointFile(checkpoint),
        progress=progress,
        tell=tell,
    )
