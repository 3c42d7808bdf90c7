"""Errors that are estimates until a choice hangs on them: solving and measuring in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from eckart.compressors.contract import CompressorCard, Family, JointFamily, Members, lazy

ROUNDS = 8
"""Solves at most."""

Choice = dict[str, int | None]


def settle(solve: Callable[[], Choice], measure: Callable[[Choice], int], error: Callable[[Choice], float]) -> Choice:
    """Solves and measures until all that is picked was measured; returns the choice of the least measured error.

    Args:
        solve: the choice by the errors known so far.
        measure: measures what is an estimate in a choice; returns how many candidates that were.
        error: of a choice that was measured.
    """
    best, least = solve(), math.inf
    choice = best
    for done in range(1, ROUNDS + 1):
        fresh = measure(choice)
        if (value := error(choice)) < least:
            best, least = choice, value
        if not fresh or done == ROUNDS:
            break
        choice = solve()
    return best


def measured(
    method: CompressorCard,
    kind: str,
    together: Members,
    family: Family | JointFamily | None,
    known: Mapping[int, float],
    size: int,
) -> tuple[dict[int, float], list[float]]:
    """Measures one size of a lazy family; returns all errors that are known then, and an error for every size.

    Args:
        method: of the family.
        kind: of the group it is fitted to.
        together: the group.
        family: None where it was not kept, and is to be fitted again.
        known: errors by size, measured before.
        size: what is measured.
    """
    family = method.candidates(kind, together) if family is None else family
    if not lazy(family):
        raise TypeError(f"the errors of {method.name} cannot be measured one by one")
    family.known |= known
    family.measure(size)
    return dict(family.known), family.estimates().tolist()
