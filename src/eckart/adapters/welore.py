"""The thin factors that compression left train, where they are."""

from __future__ import annotations

import copy

from eckart.adapters.contract import Layer, Start, adapter
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense


@adapter(
    "welore",
    paper="Jaiswal et al. 2024, arXiv 2407.11239",
    expression="Chain(Dense*, Dense*)",
    unmeasured="it trains what a compression left, at numbers that no budget of the benchmark fixes",
)
def welore(layer: Layer) -> Start | None:
    """The factors of every matrix that stands as a product of two thin ones train; all others are frozen.

    Nothing is added: the model is one that was compressed, by `eckart compress --method welore` as in the paper, which
    makes low-rank just the matrices whose singular values fall off fast, or by any other low-rank method. The rank is
    that of each matrix and `rank` is not used. Merging costs nothing.
    """
    if not isinstance(layer.structure, Chain):
        return None
    factors = layer.structure.operands()
    if len(factors) != 2 or not all(isinstance(factor, Dense) for factor in factors):
        return None
    path = copy.deepcopy(layer.structure).to(layer.dtype).requires_grad_(True)
    return Start(path, rank=factors[0].shape[1], whole=True)
