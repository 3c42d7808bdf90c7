"""A whole model that learns, by any optimizer, in any parametrization."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.learning.loop import Training
from eckart.jobs.reparametrize.hooks import StepHooks
from eckart.jobs.reparametrize.run import Reparametrization
from eckart.jobs.train.followed import Followed
from eckart.optim import groups, state_bytes
from eckart.optim.contract import OPTIMIZERS

SPECTRA = "spectra"
TOTAL = "total"
GIVEN = {"params", "lr", "weight_decay"}
"""Arguments of an optimizer that are not its options: they are those of the training."""
COMMON = {"bits": int, "betas": tuple[float, ...], "eps": float}
"""Options of every optimizer that its signature does not name."""


class Learning:
    """A model in whose every parameter that asks for a gradient something is learned.

    Attributes:
        keeps_best: not where a schedule makes of the last values what they are to be.
        split: numbers of each group of parameters, by the rule that moves them.
        followed: spectra of its matrices, whenever it is kept.
        done: steps that are over.
        warnings: what is not as it was asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: str,
        options: Mapping[str, Any],
        training: Training,
        made: Reparametrization | None,
        other_rate: float,
    ) -> None:
        self.model, self._made, self.done = model.train(), made, 0
        entry = OPTIMIZERS.find(optimizer).entry
        if TOTAL in inspect.signature(entry).parameters:  # the run's length
            options = {TOTAL: training.steps, **options}
        # An optimizer that has `finish` ends in a pattern, as parametrizations with a schedule do.
        self.keeps_best = (made is None or made.method.schedule is None) and not hasattr(entry, "finish")
        common = {"lr": training.rate, "weight_decay": training.decay}
        parts = groups(model, {}, {**common, "lr": other_rate}, show=False)
        self.optimizer: torch.optim.Optimizer = entry(parts, **common, seed=training.seed, **options)
        self.hooks: StepHooks | None = None if made is None else made.schedule(self.optimizer, training.steps)
        self.split: dict[str, int] = {}
        for group in self.optimizer.param_groups:
            rule = "adamw" if group.get("rule") == "adamw" else optimizer
            self.split[rule] = self.split.get(rule, 0) + sum(p.numel() for p in group["params"])
        self.warnings = (
            []
            if optimizer in self.split
            else [f"{optimizer} moves nothing here: no matrix is among what trains, and AdamW moves all of it"]
        )
        self.followed = Followed(model)
        self.followed.look(0)

    def before_step(self) -> None:
        """What the parametrization does then."""
        if self.hooks is not None:
            self.hooks.before_step()

    def regulariser(self) -> Tensor | float:
        """None."""
        return 0.0

    def after_backward(self) -> None:
        """What the parametrization does then."""
        if self.hooks is not None:
            self.hooks.after_backward()

    def after_step(self) -> None:
        """What the parametrization does then."""
        if self.hooks is not None:
            self.hooks.after_step()
        self.done += 1

    def values(self) -> dict[str, Tensor]:
        """A copy of all tensors of the model, those of one storage once."""
        found, seen = {}, set()
        for name, tensor in self.model.state_dict().items():
            if tensor.data_ptr() not in seen or not tensor.numel():
                found[name] = tensor.detach().clone()
            seen.add(tensor.data_ptr())
        return found

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts `values` back."""
        held = self.model.state_dict()
        if not set(tensors) <= set(held):
            raise Refused(f"the model has no {sorted(set(tensors) - set(held))[0]}")
        for name, tensor in tensors.items():
            held[name].copy_(tensor)

    def schedule_state(self) -> dict[str, Tensor]:
        """Of the parametrization, and the spectra so far, with those of now."""
        self.followed.look(self.done)
        return {SPECTRA: self.followed.state(), **({} if self.hooks is None else self.hooks.state_dict())}

    def resume(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Goes on with the parametrization's schedule."""
        self.done = done
        self.followed.go_on(state[SPECTRA])
        if self.hooks is not None:
            self.hooks.load_state_dict({name: tensor for name, tensor in state.items() if name != SPECTRA})

    def finish(self) -> None:
        """What is trained takes its last form."""
        if hasattr(self.optimizer, "finish"):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                self.optimizer.finish()
            self.warnings += [str(each.message) for each in told]
        if self._made is not None:
            self._made.finish()

    def state_bytes(self) -> int:
        """Of what the optimizer remembers."""
        return sum(state_bytes(self.optimizer).values())
