"""The least error that a budget allows: the multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eckart.budget.contract import Candidates, allocation
from eckart.budget.greedy import greedy

_ROW_SCALE = 1e6
"""The budget as HiGHS sees it: its feasibility tolerance of 1e-6 is then 1e-12 of the budget."""


@allocation()
def exact(sites: Sequence[Candidates], budget: float) -> list[int]:
    """The multiple-choice knapsack: minimal summed error, proven to 1e-6 of the greedy solution's error.

    Candidates that a Lagrangian bound rules out are dropped first, which leaves HiGHS a handful a site.
    """
    start = greedy(sites, budget)
    value = sum(float(c.errors[i]) for c, i in zip(sites, start, strict=True))
    if value <= 0:
        return start
    price = _price(sites, budget)
    reduced = [c.errors + price * c.costs for c in sites]
    bound = sum(float(r.min()) for r in reduced) - price * budget
    slack = max(0.0, value - bound) + 1e-9 * value
    keep = [np.flatnonzero(r <= r.min() + slack) for r in reduced]
    if all(len(k) == 1 for k in keep):
        return [int(k[0]) for k in keep]
    best, loss, limit = start, value, budget
    for _ in range(3):
        choice = _knapsack(sites, keep, limit, value)
        if choice is None:
            break
        excess = sum(float(c.costs[i]) for c, i in zip(sites, choice, strict=True)) - budget
        found = sum(float(c.errors[i]) for c, i in zip(sites, choice, strict=True))
        if excess <= 0 and (found < loss or (found == loss and best is start)):
            best, loss = choice, found
        if excess <= 0 and limit < budget:
            break
        # HiGHS takes 0.999999 for one, and may so overspend by some millionth. Where a choice costs a hair more than
        # the budget it may also miss the best of the others, and finds it a few millionths below.
        limit -= max(0.0, excess) + 4e-6 * budget
    return best


def _knapsack(
    sites: Sequence[Candidates], keep: Sequence[NDArray[np.int64]], budget: float, unit: float
) -> list[int] | None:
    """The best choice among the candidates `keep` of each site; errors are counted in `unit`s."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # which takes longer to load than any other choice does
    from scipy.sparse import coo_array

    count = np.array([len(k) for k in keep])
    costs = np.concatenate([c.costs[k] for c, k in zip(sites, keep, strict=True)])
    errors = np.concatenate([c.errors[k] for c, k in zip(sites, keep, strict=True)]) / unit
    one_each = coo_array(
        (np.ones(len(costs)), (np.repeat(np.arange(len(sites)), count), np.arange(len(costs)))),
        shape=(len(sites), len(costs)),
    ).tocsr()
    result: Any = milp(
        errors,
        integrality=np.ones(len(costs)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint((costs / budget * _ROW_SCALE)[None, :], -np.inf, _ROW_SCALE),
        ],
        options={"mip_rel_gap": 1e-6, "time_limit": 20.0},
    )
    if result.x is None:
        return None
    return [int(k[np.argmax(x)]) for k, x in zip(keep, np.split(result.x, np.cumsum(count)[:-1]), strict=True)]


def _price(sites: Sequence[Candidates], budget: float) -> float:
    """The price of a unit of cost at which the unconstrained choice just meets the budget."""
    steepest = max(
        float(c.errors.max() / max(1e-300, np.diff(np.unique(c.costs)).min(initial=c.costs[-1]))) for c in sites
    )
    low, high = 0.0, max(steepest, 1e-300)
    for _ in range(200):
        middle = (low * high) ** 0.5 if low > 0 else high * 1e-3
        if middle in (low, high) or middle < 1e-280:
            break
        cost = sum(float(c.costs[np.argmin(c.errors + middle * c.costs)]) for c in sites)
        low, high = (middle, high) if cost > budget else (low, middle)
    return high
