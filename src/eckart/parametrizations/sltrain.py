"""A low-rank matrix and a sparse one of fixed drawn places in the place of a matrix, from the start."""

from __future__ import annotations

import math

import torch

from eckart.errors import Refused
from eckart.parametrizations._sparse import drawn
from eckart.parametrizations.contract import Layer, affordable, check_share, parametrization
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.compose import Sum
from eckart.structures.low_rank import low_rank, low_rank_cost
from eckart.structures.scaled import Scaled
from eckart.structures.sparse import Sparse


@parametrization(
    "sltrain",
    paper="Han et al. 2024, arXiv 2406.02214",
    expression="Sum(Scaled(Chain(Dense*, Dense*)), Sparse*)",
    limit={"delta": 1.0, "rank": 0},
)
def sltrain(
    layer: Layer,
    *,
    delta: float = 0.03,
    keep: float = 0.5,
    of: str = "parameters",
    rank: int = -1,
    alpha: float = 16.0,
) -> StructuredMatrix:
    """W = (alpha / r) B A + S, S of a share `delta` of the entries, at places that are drawn once and stay.

    r is what `keep` leaves beside S, or `rank` where that is not -1; with 0 there is S alone. B starts at zero, A
    uniform in +- 1 / sqrt(in), and S from the entries of W at its places, which for a new linear layer is the authors'
    uniform start: so W is S at first, and activations have `delta` of their variance. Learning rates are larger than
    those of dense training. Places take 16 bits where the shape allows it, and are drawn without a permutation of all.

    Neither W nor its whole gradient is formed, in a step or before: that of S is taken out of a few rows at a time.
    The authors' own kernel forms both, and they count no indices.

    Less memory than dense training is reproduced: less than half at the peak for a quarter of the bytes. Better than
    low rank alone at equal bytes is not, because on a small net and two passes it is 0.013 behind; 200 steps of a small
    Llama take it little past how often tokens come, where low rank learns as well as the dense model.
    """
    out, columns = layer.shape
    check_share("delta", delta)
    if not math.isfinite(alpha) or alpha <= 0:
        raise Refused(f"alpha={alpha} must be finite and positive")
    flat = drawn(max(1, round(delta * out * columns)), out * columns, layer.generator).to(layer.weight.device)
    row, column = flat // columns, flat % columns
    offsets = torch.searchsorted(row, torch.arange(out + 1, device=row.device))
    sparse = Sparse(layer.weight[row, column].clone(), column, offsets, size=columns)
    if rank == -1:
        beside, size = sparse.cost(), layer.weight.element_size()
        rank = affordable(
            layer.weight,
            keep,
            of,
            lambda r: low_rank_cost(out, columns, r, size) + Cost(0, 0, out) + beside,
            min(out, columns),
        )
    if not 0 <= rank <= min(out, columns):
        raise Refused(f"rank={rank} is not in 0..{min(out, columns)}, what a matrix {layer.shape} allows")
    if rank == 0:
        return sparse
    uniform = torch.rand(rank, columns, generator=layer.generator, dtype=torch.float64)
    right = layer.like((2 * uniform - 1) / columns**0.5)
    return Sum(Scaled(low_rank(layer.weight.new_zeros(out, rank), right), scale=alpha / rank), sparse)
