"""Less is taken from a matrix whose spectrum has a heavy tail."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eckart.budget.contract import Array, Candidates, allocation

EPSILON = 0.2
"""How far what a site loses may depart from what all lose, as a share of that."""


@allocation(blind=True)
def farms(sites: Sequence[Candidates], budget: float) -> list[int]:
    """What each site loses is linear in the exponent of its tail: a share of (1 + EPSILON u) s, u from -1 to 1.

    u is -1 at the smallest exponent, 1 at the largest, and 0 where it is not known; s is as small as the budget allows
    (Lu et al. 2024, AlphaPruning, with the exponents of Hu et al. 2025, FARMS).
    """
    tails = np.array([np.nan if c.tail is None else c.tail for c in sites])
    known = tails[~np.isnan(tails)]
    span = float(np.ptp(known)) if len(known) else 0.0
    u = np.nan_to_num(2 * (tails - known.min()) / span - 1) if span > 0 else np.zeros(len(sites))
    loss = 1 + EPSILON * u

    return by_loss(sites, budget, loss)


def by_loss(sites: Sequence[Candidates], budget: float, loss: Array) -> list[int]:
    """Every site loses at least a share s * loss of its dense cost; s is as small as the budget allows."""

    def pick(s: float) -> list[int]:
        limits = [max(0.0, 1 - s * w) * c.costs[-1] * (1 + 1e-12) for c, w in zip(sites, loss, strict=True)]
        return [max(0, int(np.searchsorted(c.costs, x, "right")) - 1) for c, x in zip(sites, limits, strict=True)]

    # The choice changes only where a limit passes a cost.
    steps = np.unique(np.concatenate([(1 - c.costs / c.costs[-1]) / w for c, w in zip(sites, loss, strict=True)]))
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        spent = sum(float(c.costs[i]) for c, i in zip(sites, pick(float(steps[middle])), strict=True))
        low, high = (low, middle) if spent <= budget else (middle + 1, high)
    return pick(float(steps[low]))
