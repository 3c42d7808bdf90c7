"""Structures that train, in the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import TrainerCallback

from eckart.errors import Refused
from eckart.files.tensors import write_safetensors
from eckart.jobs.reparametrize.hooks import StepHooks
from eckart.jobs.reparametrize.run import Reparametrization
from eckart.optim import check_groups

SCHEDULE = "eckart_parametrization.safetensors"
"""Beside the tensors of a checkpoint: what the schedule of a method has to keep."""


class ParametrizationCallback(TrainerCallback):
    """Does for `transformers.Trainer` what a plain loop does with `Reparametrization.schedule`, once a step.

    >>> from eckart.trainer import ParametrizationCallback
    >>> made = eckart.reparametrize(model, "rigl", keep=0.2)  # doctest: +SKIP
    >>> trainer = Trainer(model, callbacks=[ParametrizationCallback(made)], ...)  # doctest: +SKIP

    What acts on gradients does so after they were clipped. Checkpoints hold the state of the schedule;
    `resume_from_checkpoint` goes on from them. `made.finish()` comes after `trainer.train()`.

    Args:
        made: of the model that is trained.
    """

    def __init__(self, made: Reparametrization) -> None:
        self.made = made
        self._hooks: StepHooks | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        own = getattr(optimizer, "optimizer", optimizer)
        self._hooks = self.made.schedule(own, max(1, state.max_steps))
        check_groups(self.made.model, own.param_groups)
        if state.global_step:
            file = _schedule_file(args, state)
            if not file.is_file():
                raise Refused(
                    f"{file} is not there, and {self.made.method.name} cannot go on without the state of its "
                    "schedule: resume from a checkpoint in output_dir that ParametrizationCallback was at"
                )
            self._hooks.load_state_dict(load_file(file))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._hooks is not None and state.is_world_process_zero:
            tensors = {name: tensor.detach().contiguous() for name, tensor in self._hooks.state_dict().items()}
            write_safetensors(tensors, _schedule_file(args, state), {"format": "pt"})

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._hooks is not None:
            self._hooks.before_step()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._hooks is not None:
            self._hooks.after_backward()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._hooks is not None:
            self._hooks.after_step()


def _schedule_file(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / SCHEDULE
