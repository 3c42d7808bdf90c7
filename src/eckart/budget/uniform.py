"""The same share of every matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eckart.budget.contract import Candidates, allocation


@allocation(blind=True)
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
