"""What is picked for every group, and how it is settled where errors are estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from eckart.jobs.compress.curves import Curve

Choice = dict[str, int | None]
"""The size of each group of matrices, by its name; None for dense."""

ROUNDS = 8
"""Solves at most, where errors are estimates until they are measured."""


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


def summed(
    curves: Mapping[str, Curve], choice: Mapping[str, int | None], weights: Mapping[str, float], least: float = 0.0
) -> float:
    """The errors of a choice, each group's by its weight, or `least` where that is more."""
    found = {name: (curves[name].errors or [])[curves[name].sizes.index(size)] for name, size in choice.items()}
    return sum(max(weights[name] * error, least) for name, error in found.items())


def weights_of(curves: Mapping[str, Curve], even: bool) -> dict[str, float]:
    """What the errors of each group count for, by its name: one, or what makes all worth the same for each number."""
    if not even:
        return dict.fromkeys(curves, 1.0)
    dense = {name: curve.costs[-1].parameters for name, curve in curves.items()}
    zero = sum(curve.zero_error for curve in curves.values()) / max(1, sum(dense.values()))
    return {n: dense[n] * zero / c.zero_error if c.zero_error > 0 else 1.0 for n, c in curves.items()}


def unmet(failures: Mapping[str, str], compressed_before: int) -> str:
    """Why a budget may not be met, as the beginning of a sentence: what stays dense, and what is compressed already."""
    failed = [f"{name} stays dense: {reason}" for name, reason in failures.items()]
    if compressed_before:
        failed.insert(0, f"{compressed_before} matrices are compressed already (start from the dense model)")
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"{'; '.join(failed[:3])}{more}; so " if failed else ""
