"""What an allocation is given and gives, and their register: one candidate for each matrix under a common budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eckart.errors import Refused
from eckart.register import near

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """What one matrix offers.

    Attributes:
        costs: in the currency of the budget, (k,). The last candidate is the matrix as it is.
        errors: what each loses, (k,), comparable between matrices; the last one is the least, or as good as.
        slope: fall of the error for cost from nothing at all to the first candidate; 0 where that is not known.
        tail: exponent of the tail of the spectrum, smaller for a heavier one; None where that is not known.
        influence: how far its block turns what it is given; None where that is not known.
    """

    costs: Array
    errors: Array
    slope: float = 0.0
    tail: float | None = None
    influence: float | None = None

    def __post_init__(self) -> None:
        if len(self.costs) != len(self.errors) or len(self.costs) == 0:
            raise Refused(f"{len(self.costs)} costs do not go with {len(self.errors)} errors")
        if not (np.isfinite(self.costs).all() and np.isfinite(self.errors).all()):
            raise Refused("costs and errors must be finite")


Pick = Callable[[Sequence[Candidates], float], list[int]]
"""Candidates of each site, in ascending order of cost, and a budget -> an index into those of each site."""


@dataclass(frozen=True)
class Allocation:
    """A way to share a budget out.

    Attributes:
        pick: the choice; its docstring says how it is made.
        blind: whether it looks at no error.
    """

    pick: Pick
    blind: bool


ALLOCATIONS: dict[str, Allocation] = {}


def allocation(*, blind: bool = False) -> Callable[[Pick], Pick]:
    """Registers a function as an allocation, under its own name."""

    def register(pick: Pick) -> Pick:
        ALLOCATIONS[pick.__name__] = Allocation(pick, blind)
        return pick

    return register


def find(name: str) -> Allocation:
    """The allocation of that name; Refused where there is none."""
    if name not in ALLOCATIONS:
        raise Refused(
            f"unknown allocation {name!r}; {near(name, ALLOCATIONS)}there are {', '.join(sorted(ALLOCATIONS))}"
        )
    return ALLOCATIONS[name]


def allocate(sites: Sequence[Candidates], budget: float, allocation: str = "exact", *, floor: float = 0.1) -> list[int]:
    """Picks one candidate for each site so that the costs sum to at most the budget.

    Args:
        sites: the candidates.
        budget: in the currency of the costs.
        allocation: `uniform` (each site keeps the same share of its dense cost), `greedy` (the steepest fall of the
            error per cost first, on the lower convex hulls), `exact` (the multiple-choice knapsack, by HiGHS),
            `threshold` (one threshold on the singular values of all sites, each relative to its largest), `farms`
            (a site loses the less, the heavier the tail of its spectrum) or `influence` (the less, the further its
            block turns what it is given).
        floor: no site goes below this share of its dense cost, unless the budget forces it.

    Returns:
        An index into each site's candidates.

    Raises:
        Refused: unknown allocation, or a budget below the cheapest choice, which is named.
    """
    pick = find(allocation).pick
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
    choice = pick(reduced, budget)
    return [int(a[i]) for a, i in zip(allowed, choice, strict=True)]


def _allowed(c: Candidates, floor: float) -> NDArray[np.int64]:
    """Indices at or above the floor that cost no more than the last candidate, in ascending order of cost."""
    ok = (c.costs >= floor * c.costs[-1]) & (c.costs < c.costs[-1])
    ok[-1] = True
    indices = np.flatnonzero(ok)
    return indices[np.argsort(c.costs[indices], kind="stable")]
