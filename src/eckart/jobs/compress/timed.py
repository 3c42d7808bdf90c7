"""A budget of time: the plan is given a clock of this machine's products."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from eckart.budget.currencies import TIMED
from eckart.errors import Refused
from eckart.jobs.compress.plan import Plan
from eckart.jobs.compress.prices import Clock
from eckart.jobs.compress.product_times import cpu_name, machine, timings
from eckart.jobs.compress.recipe import Recipe
from eckart.progress import Progress


def attach_clock(plan: Plan, model: nn.Module, recipe: Recipe, cache: Path, progress: Progress) -> list[str]:
    """Gives a plan what a budget of time needs, and says what it was measured on; does nothing for other budgets.

    Args:
        plan: its clock and totals are set.
        model: as it is.
        recipe: what is asked for.
        cache: where timings are kept between runs.
        progress: told of the timing, where products were not timed before.

    Raises:
        Refused: the model is on another device than the CPU, or a method's candidates cannot be timed.
    """
    if recipe.size is not None or recipe.of not in TIMED or not plan.sites:
        return []
    weight = plan.sites[0].weight
    if weight.device.type != "cpu":
        raise Refused(f"of={recipe.of!r} counts the time of products on the CPU, and the model is on {weight.device}")
    plan.clock = Clock(timings(recipe.card, recipe.options, weight.dtype, cache, progress))
    plan.seconds = {recipe.of: plan.clock.total(model, TIMED[recipe.of])}
    on = machine(weight.dtype)
    return [
        f"{recipe.of} is that of the linear maps alone, predicted from products timed on {cpu_name()} with "
        f"{on['threads']} threads; half of the products of shapes that were left out are predicted within "
        f"{plan.clock.error:.0%}"
    ]
