"""Adapters that were trained apart, added up."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from eckart.adapters.contract import Start
from eckart.errors import Refused, check_type
from eckart.jobs.adapt.adapted import Adapted
from eckart.jobs.adapt.adapter import Adapter, adapted_layers, check_name
from eckart.jobs.adapt.run import switched_off
from eckart.structures import Scaled, StructuredMatrix, Sum


def combine(adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, name: str = "combined") -> Adapter:
    """Puts the sum of what some adapters changed beside the matrices of their model, as one more adapter.

    Each was trained on a task of its own beside the same model. The sum W + sum_i w_i dW_i is active then, does not
    train, is saved, exported and removed like any adapter, and merged where all its terms are matrices. Paths that
    depend on their input (`flylora`) are no matrix: each keeps its own choice of columns and stands beside W.

    Args:
        adapters: of one model and one method; they stay, inactive.
        weights: what each is multiplied by; 1 where there are none.
        name: of the sum.

    Returns:
        The sum, active.

    Raises:
        Refused: adapters of several models or methods, or of a method that put something else in the place of W.
    """
    check_name(name)
    check_type("adapters", adapters, Sequence[Adapter])
    check_type("weights", weights, Sequence[float] | None)
    if not adapters:
        raise Refused("there is no adapter to combine")
    first = adapters[0]
    factors = [1.0] * len(adapters) if weights is None else [float(weight) for weight in weights]
    if len(factors) != len(adapters) or not all(map(math.isfinite, factors)):
        raise Refused(f"weights={weights!r} must be {len(adapters)} finite numbers, one for each adapter")
    for adapter in adapters:
        if adapter.model is not first.model:
            raise Refused(
                f"adapter {adapter.name!r} is of another model than {first.name!r}: load it into the same one"
            )
        if adapter.method is not first.method:
            raise Refused(f"{adapter.method.name} and {first.method.name} cannot be combined: take those of one method")
        for where, place in adapter.places.items():
            if adapter.name in place.replaced | place.whole:
                raise Refused(f"{where}: {adapter.method.name} replaces W, and two of them have no sum")
            if name in place.paths:
                raise Refused(f"{where} has an adapter {name!r} already: remove it or choose another name")
    terms: dict[str, list[StructuredMatrix]] = {}
    ranks: dict[str, int] = {}
    for adapter, factor in zip(adapters, factors, strict=True):
        for where, path in adapter.paths.items():
            ranks[where] = ranks.get(where, 0) + adapter.ranks[where]
            terms.setdefault(where, []).append(_constant(path, factor))
            taken = dict(adapter.places[where].taken.items()).get(adapter.name)
            if isinstance(taken, StructuredMatrix):
                terms[where].append(_constant(taken, -factor))
    there = adapted_layers(first.model)
    places: dict[str, Adapted] = {where: there[where] for where in terms}
    with switched_off(first.model):
        for where, place in places.items():
            place.add(name, Start(Sum(*terms[where])))
    found = Adapter(first.model, name, first.method, places, ranks)
    found.activate()
    return found


def _constant(path: StructuredMatrix, factor: float) -> StructuredMatrix:
    return Scaled(copy.deepcopy(path).requires_grad_(False), scale=factor)
