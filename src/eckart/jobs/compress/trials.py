"""A trial of each method alone, which puts the errors of different methods on one scale, and of their mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypedDict

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.plan import Plan
from eckart.jobs.evaluate.quality import TOGETHER, evaluate, remembered
from eckart.models.sharing import share
from eckart.progress import Progress

HELD_BACK = 8
"""One calibration sequence in so many is held back for the trials."""


class Tried(TypedDict):
    """A trial: of a method, or of their mixture.

    Attributes:
        method: its name, or "mixture".
        even: whether all matrices counted the same for each number they have, see `Plan.solve`.
        uniform: whether every matrix kept the same share.
        predicted_kl: half of the summed errors.
        kl: mean divergence from the dense model.
    """

    method: str
    even: bool
    uniform: bool
    predicted_kl: float
    kl: float


HOPELESS = 4.0
"""A method is not tried whose errors alone predict so many times the least divergence that was measured."""
UNLIKELY = 1.0
"""Nor is another way to share out the budget: the same methods' errors, where they are wrong, are mostly too small."""


class Choose(Protocol):
    """The choice at the asked size; Refused where there is none."""

    def __call__(
        self, only: str | None = None, *, even: bool = False, uniform: bool = False, guess: bool = False
    ) -> Choice:
        """Chooses.

        Args:
            only: a method; None for all.
            even, uniform: see `Tried`.
            guess: by the errors known so far; what is picked is not measured.
        """


Put = Callable[[nn.Module, Plan, Choice], object]
Judge = Callable[[nn.Module], float]


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


def judge_here(model: nn.Module, sequences: Tensor) -> Judge:
    """Measures the mean divergence of models from a dense one."""
    reference = remembered(model, sequences)

    def judge(trial: nn.Module) -> float:
        divergence = evaluate(trial, sequences, reference, micro_batch=TOGETHER).kl
        assert divergence is not None
        return divergence

    return judge


def trials(
    plan: Plan,
    model: nn.Module,
    sequences: Tensor,
    choose: Choose,
    put: Put,
    progress: Progress,
    judge: Judge | None = None,
) -> tuple[Choice, list[Tried]]:
    """The best of the choices that one method makes alone and of those that all make together.

    A trial measures the mean KL divergence from the dense model. For a method alone, its ratio to half of the summed
    errors is the factor by which all errors of that method are then scaled, before the mixture is chosen; a method
    that cannot meet the budget alone, or is `HOPELESS`, gets the largest of these factors.

    What a matrix is worth beside the others is known less well than which of its candidates is the best: gradients of
    few tokens say the one, inputs the other. So every method is also tried with the same share for every matrix, as it
    is used by itself, and the mixture and the best of the methods with all matrices worth the same, unless errors alone
    predict more than was measured already.

    Errors are divergences here, in nats, so that what is `negligible` of them is known, and nothing is spent on it.

    Args:
        plan: fitted, with candidates of several methods; its errors are scaled, and `negligible` is set.
        model: dense; not changed.
        sequences: token ids (sequences, length), unseen by the fits.
        choose: the choice at the asked size.
        put: builds a choice into a model.
        progress: told of the phase "compete".
        judge: measures the divergence of a model that was put together; None for here.

    Returns:
        The choice, and for each trial its method (or "mixture"), the predicted and the measured divergence.
    """
    plan.negligible = plan.method.negligible
    names = sorted({name for curve in plan.curves.values() for name, _ in curve.members})
    judge = judge or judge_here(model, sequences)
    found: list[tuple[float, Choice]] = []
    history: list[Tried] = []
    steps = 2 * len(names) + 3

    def attempt(name: str, choice: Choice, *, even: bool = False, uniform: bool = False) -> float:
        divergence = next((known for known, tried in found if tried == choice), None)
        if divergence is None:
            trial = share(model)
            put(trial, plan, choice)
            divergence = judge(trial)
        found.append((divergence, choice))
        predicted = plan.error(choice) / 2
        history.append({"method": name, "even": even, "uniform": uniform, "predicted_kl": predicted, "kl": divergence})
        progress("compete", min(len(found), steps - 1), steps)
        return divergence

    progress("compete", 0, steps)
    alone = {name: plan.error(choice) for name in names if (choice := _possible(choose, name)) is not None}
    factors: dict[str, float] = {}
    divergences: dict[str, float] = {}

    def hopeless(error: float, times: float = HOPELESS) -> bool:
        return bool(divergences) and error / 2 > times * min(divergences.values())

    for name in sorted(alone, key=lambda each: alone[each]):
        if hopeless(alone[name]):
            continue
        choice = choose(name)
        error = plan.error(choice)
        if hopeless(error):
            continue
        divergences[name] = attempt(name, choice)
        factors[name] = divergences[name] / max(error / 2, 1e-12) if error > 0 else 1.0  # where all stay dense
        same = choose(name, uniform=True, guess=True)
        if same != choice and not hopeless(plan.error(same), UNLIKELY):
            attempt(name, choose(name, uniform=True), uniform=True)
    # A method that was not tried is not taken for better than those that were.
    most = max(factors.values(), default=1.0) or 1.0  # of models whose outputs nothing changes
    plan.scale({name: factors.get(name, most) for name in names})
    attempt("mixture", choose())
    guesses: list[Choice] = []
    for only in (*sorted(divergences, key=lambda each: divergences[each])[:1], None):
        guess = choose(only, even=True, guess=True)
        if guess in guesses or hopeless(plan.error(guess) / most, UNLIKELY):
            continue
        guesses.append(guess)
        choice = choose(only, even=True)
        if all(choice != tried for _, tried in found):
            attempt(only or "mixture", choice, even=True)
    progress("compete", steps, steps)
    return min(found, key=lambda trial: trial[0])[1], history


def _possible(choose: Choose, name: str) -> Choice | None:
    try:
        return choose(name, guess=True)
    except Refused:
        return None  # this method alone cannot meet the budget
