"""Adapters in the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import TrainerCallback

from eckart.errors import Refused
from eckart.files.tensors import write_safetensors
from eckart.jobs.adapt.adapter import Adapter

SCHEDULE = "eckart_schedule.safetensors"
"""Beside the tensors of a checkpoint: what the schedule of a method has to keep."""


class AdapterCallback(TrainerCallback):
    """Does for `transformers.Trainer` what a plain loop does: the regulariser, the schedule, once a step each.

    >>> from eckart.trainer import AdapterCallback
    >>> trainer = Trainer(model, arguments, train_dataset=data, callbacks=[AdapterCallback(adapter)])  # doctest: +SKIP

    The gradient of the regulariser is added after those of the loss were clipped. Checkpoints hold the model with the
    adapter in place and the state of the schedule; `resume_from_checkpoint` goes on from them.

    Args:
        adapter: of the model that is trained; the Trainer optimizes what asks for gradients, which is just it.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.adapter.plan(max(1, state.max_steps))
        if state.global_step:
            file = _schedule_file(args, state)
            kept = self.adapter.schedule_state()
            if kept and not file.is_file():
                raise Refused(
                    f"{file} is not there, and {self.adapter.method.name} cannot go on without the state of its "
                    "schedule: resume from a checkpoint in output_dir that AdapterCallback was at"
                )
            self.adapter.resume(state.global_step, load_file(file) if kept else {})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        kept = self.adapter.schedule_state()
        if kept and state.is_world_process_zero:
            tensors = {name: tensor.detach().contiguous() for name, tensor in kept.items()}
            write_safetensors(tensors, _schedule_file(args, state), {"format": "pt"})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        term = self.adapter.regulariser()
        if term.requires_grad:
            term.backward()  # type: ignore[no-untyped-call]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.adapter.step()


def _schedule_file(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / SCHEDULE
