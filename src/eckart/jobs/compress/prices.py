"""What every candidate of a model costs, in any currency; seconds are predicted from products that were timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from eckart.budget.currencies import COUNTED, TIMED
from eckart.budget.product_time import Product, chosen_times
from eckart.errors import Refused
from eckart.jobs.compress.curves import Curve
from eckart.jobs.compress.product_times import Sample, product_of
from eckart.models.groups import Group
from eckart.models.modules import StructuredLinear
from eckart.models.sites import linear_layers
from eckart.structures.base import Cost

Prices = NDArray[np.float64]


class Clock:
    """Predicted seconds of the products of a model.

    Attributes:
        error: median of `|predicted / measured - 1|` of products whose shape was left out of the fit.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._model, errors = chosen_times([sample.timed for sample in samples])
        self.error = float(np.median(errors["chosen"]))
        self._kinds: dict[str, dict[int, str]] = {}
        for sample in samples:
            self._kinds.setdefault(sample.method, {})[sample.size] = sample.timed.product.kind

    def candidate(self, method: str, size: int, group: Group, cost: Cost, tokens: int) -> float:
        """Seconds of a candidate: of each of its matrices, whose parts of its cost are as large as they are dense.

        Raises:
            Refused: the method has no candidates for the matrices that are timed.
        """
        if method not in self._kinds:
            raise Refused(f"products of {method} were not timed, as it fits no plain matrix: choose another currency")
        kinds = self._kinds[method]
        kind, whole = kinds[min(kinds, key=lambda other: abs(other - size))], sum(_entries(group))
        return sum(
            self._seconds(kind, site.shape, tokens, cost.bytes * part / whole, cost.macs * part / whole)
            for site, part in zip(group.sites, _entries(group), strict=True)
        )

    def dense(self, shape: Sequence[int], itemsize: int, tokens: int) -> float:
        """Seconds of a matrix (out, in) as it is."""
        out, columns = shape
        return self._seconds("dense", (out, columns), tokens, out * columns * itemsize, out * columns)

    def total(self, model: nn.Module, tokens: int) -> float:
        """Seconds of all linear maps of a model, its head too; Refused for a structure of a kind that was not timed."""
        found = 0.0
        for module in linear_layers(model, head=True).values():
            if isinstance(module, StructuredLinear):
                found += self._model.seconds(product_of(module.structure, tokens))
            else:
                weight: Any = module.weight
                matrix = weight.flatten(1)
                found += self.dense(matrix.shape, matrix.element_size(), tokens)
        return found

    def _seconds(self, kind: str, shape: tuple[int, int], tokens: int, stored: float, macs: float) -> float:
        return self._model.seconds(Product(kind, *shape, tokens, round(stored), round(macs)))


def prices(groups: Sequence[Group], curves: Mapping[str, Curve], of: str, clock: Clock | None) -> list[Prices]:
    """What each candidate of every group costs, the dense matrix last.

    Args:
        groups: of a plan.
        curves: by group name.
        of: a currency; see `CURRENCIES`.
        clock: for seconds; None for what is counted.

    Raises:
        Refused: a look-up is asked for what a look-up does not cost.
    """
    for group in groups:
        site = group.sites[0]
        if of not in ("macs", *TIMED) or not site.is_embedding or site.tied:
            continue
        raise Refused(f"{site.name} is a look-up, which costs no {_words(of)}: choose another currency for it")
    found = []
    for group in groups:
        curve, part = curves[group.name], group.sites[0].share
        if of in TIMED:
            if clock is None:
                raise TypeError(f"{of} needs a clock")
            found.append(part * _seconds(group, curve, TIMED[of], clock))
        else:
            part = part if of == "macs" else 1.0
            found.append(np.array([part * getattr(cost, COUNTED[of]) for cost in curve.costs]))
    return found


def _words(of: str) -> str:
    return "time worth counting" if of in TIMED else of


def _entries(group: Group) -> list[int]:
    return [site.shape[0] * site.shape[1] for site in group.sites]


def _seconds(group: Group, curve: Curve, tokens: int, clock: Clock) -> Prices:
    each = [
        clock.candidate(name, size, group, cost, tokens)
        for (name, size), cost in zip(curve.members, curve.costs, strict=False)
    ]
    dense = sum(clock.dense(site.shape, site.weight.element_size(), tokens) for site in group.sites)
    return np.array([*each, dense])
