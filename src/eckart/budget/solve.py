"""One solver that picks a candidate for each matrix under a common budget."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from eckart.errors import Refused

Array = NDArray[np.float64]

_ROW_SCALE = 1e6
"""The budget as HiGHS sees it: its feasibility tolerance of 1e-6 is then 1e-12 of the budget."""

EPSILON = 0.2
"""How far `farms` lets what a site loses depart from what all lose, as a share of that."""


@dataclass(frozen=True)
class Candidates:
    """What one matrix offers.

    Attributes:
        costs: in the currency of the budget, (k,). The last candidate is the matrix as it is.
        errors: what each loses, (k,), comparable between matrices; the last one is 0.
        slope: fall of the error for cost from nothing at all to the first candidate; 0 where that is not known.
        tail: exponent of the tail of the spectrum, smaller for a heavier one; None where that is not known.
    """

    costs: Array
    errors: Array
    slope: float = 0.0
    tail: float | None = None

    def __post_init__(self) -> None:
        if len(self.costs) != len(self.errors) or len(self.costs) == 0:
            raise Refused(f"{len(self.costs)} costs do not go with {len(self.errors)} errors")
        if not (np.isfinite(self.costs).all() and np.isfinite(self.errors).all()):
            raise Refused("costs and errors must be finite")


def allocate(sites: Sequence[Candidates], budget: float, allocation: str = "exact", *, floor: float = 0.1) -> list[int]:
    """Picks one candidate for each site so that the costs sum to at most the budget.

    Args:
        sites: the candidates.
        budget: in the currency of the costs.
        allocation: `uniform` (each site keeps the same share of its dense cost), `greedy` (the steepest fall of the
            error per cost first, on the lower convex hulls), `exact` (the multiple-choice knapsack, by HiGHS),
            `threshold` (one threshold on the singular values of all sites, each relative to its largest) or `farms`
            (a site loses the less, the heavier the tail of its spectrum).
        floor: no site goes below this share of its dense cost, unless the budget forces it.

    Returns:
        An index into each site's candidates.

    Raises:
        Refused: unknown allocation, or a budget below the cheapest choice, which is named.
    """
    if allocation not in ALLOCATIONS:
        raise Refused(f"unknown allocation {allocation!r}; there are {', '.join(ALLOCATIONS)}")
    if not sites:
        return []
    least = sum(float(c.costs.min()) for c in sites)
    total = sum(float(c.costs[-1]) for c in sites)
    if budget < least:
        raise Refused(
            f"the budget of {budget:,.0f} cannot be met: the smallest candidates together cost {least:,.0f} "
            f"({least / total:.1%} of the {total:,.0f} the matrices cost now)"
        )
    floor = min(floor, 0.5 * budget / total)
    allowed = [_allowed(c, floor) for c in sites]
    if sum(float(c.costs[a].min()) for c, a in zip(sites, allowed, strict=True)) > budget:
        allowed = [_allowed(c, 0.0) for c in sites]
    reduced = [replace(c, costs=c.costs[a], errors=c.errors[a]) for c, a in zip(sites, allowed, strict=True)]
    choice = ALLOCATIONS[allocation](reduced, budget)
    return [int(a[i]) for a, i in zip(allowed, choice, strict=True)]


def _allowed(c: Candidates, floor: float) -> NDArray[np.int64]:
    """Indices at or above the floor that cost no more than the last candidate, in ascending order of cost."""
    ok = (c.costs >= floor * c.costs[-1]) & (c.costs < c.costs[-1])
    ok[-1] = True
    indices = np.flatnonzero(ok)
    return indices[np.argsort(c.costs[indices], kind="stable")]


def uniform(sites: Sequence[Candidates], budget: float) -> list[int]:
    """The largest candidate of each site within one common share of its dense cost; the share is as large as fits."""

    def pick(share: float) -> list[int]:
        return [max(0, int(np.searchsorted(c.costs, share * c.costs[-1] * (1 + 1e-12), "right")) - 1) for c in sites]

    def cost(choice: Sequence[int]) -> float:
        return sum(float(c.costs[i]) for c, i in zip(sites, choice, strict=True))

    shares = np.unique(np.concatenate([c.costs / c.costs[-1] for c in sites]))
    low, high = 0, len(shares) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(pick(float(shares[middle]))) <= budget else (low, middle - 1)
    return pick(float(shares[low]))


def greedy(sites: Sequence[Candidates], budget: float) -> list[int]:
    """Starts at the cheapest candidates and climbs the convex hulls, the steepest step that still fits first."""
    hulls = [_hull(c) for c in sites]
    at = [0] * len(sites)
    left = budget - sum(float(c.costs[h[0]]) for c, h in zip(sites, hulls, strict=True))
    heap: list[tuple[float, int]] = []

    def push(k: int) -> None:
        c, h = sites[k], hulls[k]
        if at[k] + 1 < len(h):
            a, b = h[at[k]], h[at[k] + 1]
            heapq.heappush(heap, (-float((c.errors[a] - c.errors[b]) / (c.costs[b] - c.costs[a])), k))

    for k in range(len(sites)):
        push(k)
    while heap:
        _, k = heapq.heappop(heap)
        c, h = sites[k], hulls[k]
        step = float(c.costs[h[at[k] + 1]] - c.costs[h[at[k]]])
        if step <= left:
            left -= step
            at[k] += 1
            push(k)
    return [int(h[i]) for h, i in zip(hulls, at, strict=True)]


def _hull(c: Candidates) -> list[int]:
    """Indices of the lower convex hull of (cost, error) from the cheapest candidate to the least error."""
    hull: list[int] = []
    for i in range(len(c.costs)):
        if hull and c.errors[i] >= c.errors[hull[-1]]:
            continue
        if hull and c.costs[i] == c.costs[hull[-1]]:
            hull.pop()
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (c.errors[a] - c.errors[b]) * (c.costs[i] - c.costs[b]) > (c.errors[b] - c.errors[i]) * (
                c.costs[b] - c.costs[a]
            ):
                break
            hull.pop()
        hull.append(i)
    return hull


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
    limit = budget
    for _ in range(3):
        choice = _knapsack(sites, keep, limit, value)
        if choice is None:
            break
        excess = sum(float(c.costs[i]) for c, i in zip(sites, choice, strict=True)) - budget
        if excess <= 0:
            return choice if sum(float(c.errors[i]) for c, i in zip(sites, choice, strict=True)) <= value else start
        # HiGHS takes 0.999999 for one, and may so overspend by some millionth.
        limit -= excess + 4e-6 * budget
    return start


def threshold(sites: Sequence[Candidates], budget: float) -> list[int]:
    """One threshold t for all sites: each keeps its singular values with s_i / s_max >= t; the least t that is paid.

    The error of rank r is the sum of the s_i^2 behind it and the cost is proportional to r. The fall of the error for
    cost between two candidates is so the mean of s_i^2 over the ranks between them, up to a factor that the fall from
    nothing to the first candidate, s_max^2, divides out. The dense matrix follows on the last rank that pays
    (Jaiswal et al. 2024, arXiv 2407.11239).
    """
    ladders, rises, levels = [], [], []
    for c in sites:
        pays = _hull(replace(c, costs=c.costs[:-1], errors=c.errors[:-1])) if len(c.costs) > 1 else []
        ladder = [*pays, len(c.costs) - 1]
        rise = np.diff(c.costs[ladder])
        slopes = np.minimum.accumulate(np.maximum(0.0, -np.diff(c.errors[ladder])) / rise)
        ladders.append(ladder)
        rises.append(rise)
        levels.append(slopes / max(c.slope, slopes.max(initial=0.0), 1e-300))
    owner = np.repeat(np.arange(len(sites)), [len(rise) for rise in rises])
    # Descending; a site's own steps stay in order where they are equal.
    order = np.argsort(-np.concatenate(levels), kind="stable")
    spent = sum(float(c.costs[0]) for c in sites) + np.cumsum(np.concatenate(rises)[order])
    taken = np.bincount(owner[order[: np.searchsorted(spent, budget, "right")]], minlength=len(sites))
    return [int(ladder[n]) for ladder, n in zip(ladders, taken, strict=True)]


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


def _knapsack(
    sites: Sequence[Candidates], keep: Sequence[NDArray[np.int64]], budget: float, unit: float
) -> list[int] | None:
    """The best choice among the candidates `keep` of each site; errors are counted in `unit`s."""
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


ALLOCATIONS: dict[str, Callable[[Sequence[Candidates], float], list[int]]] = {
    "uniform": uniform,
    "greedy": greedy,
    "exact": exact,
    "threshold": threshold,
    "farms": farms,
}

BLIND = ("uniform", "farms")
"""Allocations that do not look at the errors."""
