"""The steepest fall of the error for cost first."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from eckart.budget.contract import Candidates, allocation


@allocation()
def greedy(sites: Sequence[Candidates], budget: float) -> list[int]:
    """Starts at the cheapest candidates and climbs the convex hulls, the steepest step that still fits first."""
    hulls = [convex_hull(c) for c in sites]
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


def convex_hull(c: Candidates) -> list[int]:
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
