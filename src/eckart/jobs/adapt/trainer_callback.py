"""Adapters in the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from eckart.jobs.adapt.adapter import Adapter


class AdapterCallback(TrainerCallback):
    """Does for `transformers.Trainer` what a plain loop does: the regulariser, the schedule, once a step each.

    >>> from eckart.trainer import AdapterCallback
    >>> trainer = Trainer(model, arguments, train_dataset=data, callbacks=[AdapterCallback(adapter)])  # doctest: +SKIP

    The gradient of the regulariser is added after those of the loss were clipped.

    Args:
        adapter: of the model that is trained; the Trainer optimizes what asks for gradients, which is just it.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.adapter.plan(max(1, state.max_steps))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        term = self.adapter.regulariser()
        if term.requires_grad:
            term.backward()  # type: ignore[no-untyped-call]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.adapter.step()
