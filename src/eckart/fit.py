"""One matrix, one method."""

from __future__ import annotations

from torch import Tensor

from eckart import methods
from eckart.methods.lowrank import fit_low_rank
from eckart.metrics import Metric
from eckart.statistics import Statistics
from eckart.structures import StructuredMatrix


def fit(
    weight: Tensor,
    method: str = "svd",
    *,
    rank: int | None = None,
    bits: int | None = None,
    metric: Metric | None = None,
    statistics: Statistics | None = None,
) -> StructuredMatrix:
    """Approximates one matrix.

    Args:
        weight: W (out, in), any float dtype, which the result keeps.
        method: a name from `eckart.methods.METHODS`.
        rank: of a low-rank method; at most min(out, in).
        bits: of a quantizer.
        metric: what close means, for `svd`: the optimum of `metric.error(W - What)`. Other methods make their metric
            from `statistics`.
        statistics: what the method needs to know about inputs and gradients.

    Raises:
        ValueError: unknown method, a size it does not offer, missing statistics, NaN or Inf in W.

    >>> import torch, eckart
    >>> W = torch.outer(torch.arange(1.0, 5.0), torch.ones(6))
    >>> structure = eckart.fit(W, "svd", rank=1)
    >>> torch.allclose(structure.to_dense(), W)
    True
    >>> heavy = eckart.Metric(right=torch.tensor([100.0, 1, 1, 1, 1, 1]))
    >>> eckart.fit(torch.eye(6), "svd", rank=1, metric=heavy).to_dense()[0, 0].item()
    1.0
    """
    card = methods.find(method)
    size, other = (rank, bits) if card.size == "rank" else (bits, rank)
    if size is None or other is not None:
        raise ValueError(f"method {method!r} is asked for by {card.size}=, got rank={rank} and bits={bits}")
    if metric is not None:
        if method != "svd":
            raise ValueError(f"metric= goes with 'svd'; {method!r} makes its own from statistics=")
        family: methods.Family = fit_low_rank(weight, metric)
    else:
        family = card.fit(weight, statistics or Statistics())
    largest = min(weight.shape)
    if card.size == "rank" and not 1 <= size <= largest:
        raise ValueError(f"rank={size} is outside 1..{largest} of a matrix of shape {tuple(weight.shape)}")
    if card.size == "bits" and size not in family.sizes:
        raise ValueError(f"bits={size} is not offered by {method!r}; it has {', '.join(map(str, family.sizes))}")
    return family.build(size).structure
