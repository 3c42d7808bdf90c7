"""A trial of each method alone, which puts the errors of different methods on one scale, and of their mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.plan import Choice, Plan
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.sharing import share
from eckart.progress import Progress

HELD_BACK = 8
"""One calibration sequence in so many is held back for the trials."""


class Tried(TypedDict):
    """A trial: of a method, or of their mixture.

    Attributes:
        method: its name, or "mixture".
        predicted_kl: half of the summed errors.
        kl: mean divergence from the dense model.
    """

    method: str
    predicted_kl: float
    kl: float


Put = Callable[[nn.Module, Plan, Choice], object]


def held_back(batches: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Batches (sequences, length) without every eighth sequence, and these in one tensor."""
    kept, back, position = [], [], 0
    for batch in batches:
        out = (torch.arange(position, position + len(batch)) + 1) % HELD_BACK == 0
        position += len(batch)
        back.append(batch[out])
        if not out.all():
            kept.append(batch[~out])
    return kept, torch.cat(back)


def trials(
    plan: Plan,
    model: nn.Module,
    sequences: Tensor,
    choose: Callable[[str | None], Choice],
    put: Put,
    progress: Progress,
) -> tuple[Choice, list[Tried]]:
    """The best of the choices that one method makes alone and of the one that all make together.

    A trial measures the mean KL divergence from the dense model. For a method alone, its ratio to half of the summed
    errors is the factor by which all errors of that method are then scaled, before the mixture is chosen; a method
    that cannot meet the budget alone gets the largest of these factors.

    Args:
        plan: fitted, with candidates of several methods; its errors are scaled.
        model: dense; not changed.
        sequences: token ids (sequences, length), unseen by the fits.
        choose: the choice at the asked size among the candidates of one method, or of all for None; Refused where
            there is none.
        put: builds a choice into a model.
        progress: told of the phase "compete".

    Returns:
        The choice, and for each trial its method (or "mixture"), the predicted and the measured divergence.
    """
    names = sorted({name for curve in plan.curves.values() for name, _ in curve.members})
    found: list[tuple[float, Choice]] = []
    history: list[Tried] = []

    def attempt(name: str, choice: Choice) -> float:
        trial = share(model)
        put(trial, plan, choice)
        divergence = evaluate(trial, sequences, model, micro_batch=4).kl
        assert divergence is not None
        found.append((divergence, choice))
        history.append({"method": name, "predicted_kl": plan.error(choice) / 2, "kl": divergence})
        return divergence / max(plan.error(choice) / 2, 1e-12)

    factors = {}
    for done, name in enumerate(names):
        progress("compete", done, len(names) + 1)
        try:
            choice = choose(name)
        except Refused:
            continue  # this method alone cannot meet the budget
        factors[name] = attempt(name, choice)
    # A method that was not tried is not taken for better than those that were.
    most = max(factors.values(), default=1.0)
    plan.scale({name: factors.get(name, most) for name in names})
    progress("compete", len(names), len(names) + 1)
    attempt("mixture", choose(None))
    progress("compete", len(names) + 1, len(names) + 1)
    return min(found, key=lambda trial: trial[0])[1], history
