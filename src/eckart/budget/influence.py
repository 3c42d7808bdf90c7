"""Less is taken from a block that changes much of what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eckart.budget.contract import Candidates, allocation
from eckart.budget.farms import by_loss

TEMPERATURE = 0.1
"""Of the softmax over the influences of blocks; what all blocks lose is nearly the same far above it."""


@allocation(blind=True)
def influence(sites: Sequence[Candidates], budget: float) -> list[int]:
    """What the matrices of a block lose is proportional to exp(-s / TEMPERATURE), s the influence of the block.

    As phi_l = L phi softmax(-s / TEMPERATURE)_l (Lin et al. 2024, MoDeGPT), phi what the budget asks for; the
    temperature is a choice of ours. Matrices in no block lose what a block of mean influence does.
    """
    found = np.array([np.nan if c.influence is None else c.influence for c in sites])
    known = found[~np.isnan(found)]
    s = (
        np.nan_to_num(found - known.min(), nan=float((known - known.min()).mean()))
        if len(known)
        else np.zeros(len(sites))
    )
    return by_loss(sites, budget, np.exp(-s / TEMPERATURE))
