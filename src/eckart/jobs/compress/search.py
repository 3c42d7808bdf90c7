"""The smallest model within a given rise of the perplexity, from the nested curves and a few evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.plan import Plan
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.run import apply
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.sites import model_cost
from eckart.models.tree import share
from eckart.progress import Progress

EVALUATIONS = 6
RESOLUTION = 0.005
"""The search ends where sizes that pass and fail differ by less than this share of the model."""


def within_loss(
    max_loss: float,
    held_out: Tensor,
    recipe: Recipe,
    reference: nn.Module,
    history: list[dict[str, Any]],
    progress: Progress,
) -> Callable[[Plan, nn.Module], dict[str, int | None]]:
    """A search for the least `keep` at which perplexity on `held_out` is at most (1 + max_loss) times the dense one.

    The summed errors of the nested curves give the shape of loss against size; each evaluation scales it, and the next
    size is where the scaled curve meets the bound. What is returned was itself measured to pass; the dense model is
    the last resort.
    """
    bound = math.log1p(max_loss)

    def search(plan: Plan, model: nn.Module) -> dict[str, int | None]:
        grid = [i / 400 for i in range(20, 400)]
        choices: dict[float, dict[str, int | None]] = {}
        for keep in grid:
            try:
                choices[keep] = plan.solve(keep, recipe.of, "greedy", recipe.floor)
            except Refused:
                continue
        dense: dict[str, int | None] = dict.fromkeys((group.name for group in plan.groups), None)
        if not choices:
            raise Refused(
                f"no size of {plan.method.name} is smaller in {recipe.of}: name another cost with --of, such as bytes"
            )
        base = evaluate(reference, held_out, micro_batch=4).nll
        best, lowest, highest = dense, 0.0, 1.0
        scale = 0.5
        for i in range(EVALUATIONS):
            open_ = [k for k in choices if lowest < k < highest]
            if not open_ or highest - lowest < RESOLUTION:
                break
            fits = [k for k in open_ if scale * plan.error(choices[k]) <= bound]
            keep = fits[0] if fits else open_[-1]
            choices[keep] = plan.choose(keep, recipe.of, "greedy", recipe.floor)
            nll, parameters = _measure(model, plan, choices[keep], held_out)
            rise = nll - base
            history.append({"keep": keep, "parameters": parameters, "perplexity": math.exp(nll)})
            error = plan.error(choices[keep])
            if error > 0 and rise > 0:
                scale = rise / error
            if rise <= bound:
                best, highest = choices[keep], keep
            else:
                lowest = keep
            progress("search", i + 1, EVALUATIONS)
        return best

    return search


def _measure(model: nn.Module, plan: Plan, choice: dict[str, int | None], held_out: Tensor) -> tuple[float, int]:
    """Mean negative log-likelihood and parameters of the model at a choice."""
    trial = share(model)
    apply(trial, plan, choice)
    return evaluate(trial, held_out, micro_batch=4).nll, model_cost(trial)["parameters"]
