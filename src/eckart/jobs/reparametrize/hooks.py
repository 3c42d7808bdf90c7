"""What a loop of training calls once a step, and what has to be kept to go on with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.parametrizations.contract import Schedule, Step

ORDER = ("before_step", "after_backward", "after_step")
_DONE, _GENERATOR, _OF, _OWN = "done", "generator", "of", "schedule."


class StepHooks:
    """The three calls of a training loop, in their order, once for each step of the optimizer.

    Attributes:
        done: steps that are over.
        steps: how many there will be.
    """

    def __init__(
        self, schedule: Schedule, optimizer: torch.optim.Optimizer, steps: int, generator: torch.Generator, of: int
    ) -> None:
        self.done, self.steps = 0, steps
        self._of = of
        self._schedule, self._optimizer, self._generator = schedule, optimizer, generator
        self._next = 0

    def before_step(self) -> None:
        """Before the model computes."""
        if self.done >= self.steps:
            raise Refused(f"all {self.steps} steps that the schedule was made for are over: ask for another schedule")
        self._schedule.before_step(self._now("before_step"))

    def after_backward(self) -> None:
        """Once all gradients of the step are there, clipped or not, before the optimizer's step."""
        self._schedule.after_backward(self._now("after_backward"))

    def after_step(self) -> None:
        """After the optimizer's step, before gradients are set to zero."""
        self._schedule.after_step(self._now("after_step"))
        self.done += 1

    def state_dict(self) -> dict[str, Tensor]:
        """What is to be kept beside the model's and the optimizer's state; new tensors, between two steps.

        Raises:
            Refused: a step is not over.
        """
        self._between("state_dict")
        own = {_OWN + name: tensor.clone() for name, tensor in self._schedule.state.items()}
        done, of = (torch.tensor(number, device="cpu") for number in (self.done, self._of))
        return {_DONE: done, _OF: of, _GENERATOR: self._generator.get_state(), **own}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where `state_dict` was called; model and optimizer have their own states.

        Raises:
            Refused: it is the state of another schedule, or a step is not over.
        """
        self._between("load_state_dict")
        expected, found = set(self.state_dict()), set(state)
        if expected != found:
            raise Refused(f"this is the state of another schedule: it differs in {', '.join(sorted(expected ^ found))}")
        if int(state[_DONE]) > self.steps:
            raise Refused(f"the state is that after {int(state[_DONE])} steps, of a schedule of {self.steps}")
        if int(state[_OF]) != self._of:
            raise Refused("the state is of another schedule: its method, options, seed or number of steps are others")
        for name, own in self._schedule.state.items():
            if own.shape != state[_OWN + name].shape:
                raise Refused(f"the state is of another model: {name} has shape {tuple(state[_OWN + name].shape)}")
        self.done = int(state[_DONE])
        self._generator.set_state(state[_GENERATOR].cpu())
        for name, own in self._schedule.state.items():
            self._schedule.state[name] = state[_OWN + name].to(own, copy=True)

    def _now(self, call: str) -> Step:
        if ORDER[self._next] != call:
            raise Refused(f"{call}() is called where {ORDER[self._next]}() comes next: each once a step, in this order")
        self._next = (self._next + 1) % len(ORDER)
        return Step(self.done, self.steps, self._optimizer)

    def _between(self, call: str) -> None:
        if self._next:
            raise Refused(f"{call}() is called inside a step: call {ORDER[self._next]}() first")
