"""One matrix, one method."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors.contract import METHODS, Family
from eckart.errors import Refused, check_type
from eckart.metrics import Metric
from eckart.statistics import Statistics
from eckart.structures import StructuredMatrix


def fit(
    weight: Tensor,
    method: str = "svd",
    *,
    metric: Metric | None = None,
    statistics: Statistics | None = None,
    **scheme: int,
) -> StructuredMatrix:
    """Approximates one matrix by a structure of a given size.

    Args:
        weight: W (out, in), any float dtype, which the result keeps.
        method: a name from `eckart.METHODS`.
        metric: what close means, for `svd`: the optimum of `metric.error(W - What)`. Other methods make their metric
            from `statistics`.
        statistics: what the method needs to know about inputs and gradients.
        **scheme: how large, in the word of the method's card: `rank=32`, `bits=4`; see `SIZES` in
            `eckart.compressors.contract`. And options of the method: `group=128`, `symmetric=True`.

    Returns:
        The structure, of the weight's shape and dtype.

    Raises:
        Refused: unknown method, a size it does not offer, missing statistics, NaN or Inf in W.

    >>> import torch, eckart
    >>> W = torch.outer(torch.arange(1.0, 5.0), torch.ones(6))
    >>> structure = eckart.fit(W, "svd", rank=1)
    >>> torch.allclose(structure.to_dense(), W)
    True
    >>> heavy = eckart.Metric(right=torch.tensor([100.0, 1, 1, 1, 1, 1]))
    >>> eckart.fit(torch.eye(6), "svd", rank=1, metric=heavy).to_dense()[0, 0].item()
    1.0
    """
    card = METHODS.find(method)
    check_type("weight", weight, Tensor)
    check_type("metric", metric, Metric | None)
    check_type("statistics", statistics, Statistics | None)
    size = {word: value for word, value in scheme.items() if word not in card.options}
    if list(size) != [card.size]:
        got = ", ".join(f"{word}={value!r}" for word, value in size.items()) or "nothing"
        raise Refused(f"method {method!r} is asked for by {card.size}=, got {got}")
    check_type(card.size, size[card.size], int)
    if weight.is_meta or not weight.numel():
        where = "on the meta device" if weight.is_meta else f"of shape {tuple(weight.shape)}"
        raise Refused(f"weight is {where} and holds no numbers")
    if metric is not None:
        if card.in_metric is None:
            free = ", ".join(repr(name) for name, other in METHODS.items() if other.in_metric is not None)
            raise Refused(f"metric= goes with {free}; {method!r} makes its own from statistics=")
        family: Family = card.in_metric(weight, metric)
    else:
        options = {word: value for word, value in scheme.items() if word in card.options}
        family = card.taking(options).entry(weight, statistics or Statistics())
    try:
        return family.build(size[card.size]).structure
    except Refused as error:
        raise Refused(f"{method!r} with {card.size}={size[card.size]!r}: {error}") from error
