"""The smallest model within a given rise of the perplexity, from the nested curves and a few evaluations."""

from __future__ import annotations

import math

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.plan import Plan, apply
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.sharing import share
from eckart.models.sites import model_cost
from eckart.progress import Progress
from eckart.report.compression import MeasuredSize

EVALUATIONS = 6
RESOLUTION = 0.005
"""The search ends where sizes that pass and fail differ by less than this share of the model."""


class LossSearch:
    """A search for the least `keep` at which perplexity on `held_out` is at most (1 + max_loss) times the dense one.

    The summed errors of the nested curves give the shape of loss against size; each evaluation scales it, and the next
    size is where the scaled curve meets the bound. What is returned was itself measured to pass; the dense model is
    the last resort.

    Attributes:
        history: what was measured, in turn.
    """

    def __init__(
        self, max_loss: float, held_out: Tensor, recipe: Recipe, reference: nn.Module, progress: Progress
    ) -> None:
        self.history: list[MeasuredSize] = []
        self._bound = math.log1p(max_loss)
        self._held_out, self._recipe, self._reference, self._progress = held_out, recipe, reference, progress

    def __call__(self, plan: Plan, model: nn.Module) -> dict[str, int | None]:
        """The sizes of each group; Refused where there are none to choose from."""
        choices = self._choices(plan)
        base = evaluate(self._reference, self._held_out, micro_batch=4).nll
        best: dict[str, int | None] = dict.fromkeys((group.name for group in plan.groups), None)
        lowest, highest, scale = 0.0, 1.0, 0.5
        for i in range(EVALUATIONS):
            open_ = [k for k in choices if lowest < k < highest]
            if not open_ or highest - lowest < RESOLUTION:
                break
            fits = [k for k in open_ if scale * plan.error(choices[k]) <= self._bound]
            keep = fits[0] if fits else open_[-1]
            choices[keep] = plan.choose(keep, self._recipe.of, "greedy", self._recipe.floor)
            rise = self._measured(model, plan, keep, choices[keep]) - base
            error = plan.error(choices[keep])
            if error > 0 and rise > 0:
                scale = rise / error
            if rise <= self._bound:
                best, highest = choices[keep], keep
            else:
                lowest = keep
            self._progress("search", i + 1, EVALUATIONS)
        return best

    def _choices(self, plan: Plan) -> dict[float, dict[str, int | None]]:
        """The best choice at each of many sizes, by the errors known so far."""
        choices: dict[float, dict[str, int | None]] = {}
        for keep in [i / 400 for i in range(20, 400)]:
            try:
                choices[keep] = plan.solve(keep, self._recipe.of, "greedy", self._recipe.floor)
            except Refused:  # smaller than the smallest
                continue
        if not choices:
            raise Refused(
                f"no size of {plan.method.name} is smaller in {self._recipe.of}: name another cost with --of, such as "
                "bytes"
            )
        return choices

    def _measured(self, model: nn.Module, plan: Plan, keep: float, choice: dict[str, int | None]) -> float:
        """Mean negative log-likelihood of the model at a choice, which enters the history."""
        trial = share(model)
        apply(trial, plan, choice)
        nll, parameters = evaluate(trial, self._held_out, micro_batch=4).nll, model_cost(trial)["parameters"]
        self.history.append(MeasuredSize(keep=keep, parameters=parameters, perplexity=math.exp(nll)))
        return nll
