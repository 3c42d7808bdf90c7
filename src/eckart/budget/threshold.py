"""One threshold on the singular values of all matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from eckart.budget.contract import Candidates, allocation
from eckart.budget.greedy import convex_hull


@allocation()
def threshold(sites: Sequence[Candidates], budget: float) -> list[int]:
    """One threshold t for all sites: each keeps its singular values with s_i / s_max >= t; the least t that is paid.

    The error of rank r is the sum of the s_i^2 behind it and the cost is proportional to r. The fall of the error for
    cost between two candidates is so the mean of s_i^2 over the ranks between them, up to a factor that the fall from
    nothing to the first candidate, s_max^2, divides out. The dense matrix follows on the last rank that pays
    (Jaiswal et al. 2024, arXiv 2407.11239).
    """
    ladders, rises, levels = [], [], []
    for c in sites:
        pays = convex_hull(replace(c, costs=c.costs[:-1], errors=c.errors[:-1])) if len(c.costs) > 1 else []
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
