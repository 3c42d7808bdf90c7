"""A compressed model and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.distill import Distillation
from eckart.jobs.compress.heal import Healing
from eckart.jobs.compress.plan import Plan
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.trials import Tried
from eckart.models.sites import model_bytes, model_cost
from eckart.report.numbers import shown_bytes, shown_change, shown_count
from eckart.report.shown import Glance, Shown, noted
from eckart.report.types import Coverage


@dataclass(repr=False)
class Compression(Shown):
    """A compressed model and what is known about it.

    Attributes:
        model: the model, its matrices replaced in place.
        recipe: what was asked for.
        plan: the candidates of every matrix.
        choice: the size chosen for each group of sites, by its name, None for dense.
        calibration: fingerprint, tokens, passes, sequential, gradient_checkpointing.
        errors: squared error of each site that is not dense, in the method's metric, as it was fitted.
        seconds: by phase.
        notes: what to know of the result: inputs that are rounded, times that were predicted.
        warnings: what did not go as asked.
        trials: of `auto`: method, predicted_kl and kl of each.
        healing: what the training of the blocks did; None where there was none.
        distillation: what the training end to end did; None where there was none.
        coverage: what share of the model's numbers was looked at, and what was left and why; its `sentence` says it.
    """

    model: nn.Module
    recipe: Recipe
    plan: Plan
    choice: Choice
    errors: dict[str, float]
    calibration: dict[str, Any]
    coverage: Coverage
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    trials: list[Tried] = field(default_factory=list)
    healing: Healing | None = None
    distillation: Distillation | None = None

    @property
    def error(self) -> float:
        """Summed squared error in the method's metric; half of it may predict the rise of the loss in nats."""
        return sum(self.errors.values())

    def glance(self) -> Glance:
        """Sizes before and after, how many matrices were compressed, and warnings."""
        after = {**model_cost(self.model), "bytes": model_bytes(self.model)}
        sizes = (("linear parameters", shown_count), ("parameters", shown_count), ("bytes", shown_bytes))
        rows = []
        for name, show in sizes:
            left, total = after[name.replace(" ", "_")], self.plan.totals[name.replace(" ", "-")]
            rows.append((name, show(total), show(left), shown_change(total, left)))
        dense = sum(size is None for size in self.choice.values())
        rows.append(("matrices", "", f"{len(self.choice)}, {dense} left dense", ""))
        title = f"Compression: {type(self.model).__name__} by {self.recipe.method}"
        return Glance(title, rows, ("before", "after", "change"), [*self.notes, *noted(self.warnings, self.coverage)])
