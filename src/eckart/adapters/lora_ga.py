"""The first step of the adapter is the first step of full training, as far as its rank allows."""

from __future__ import annotations

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.errors import Refused
from eckart.linalg.truncated_svd import truncated_svd
from eckart.structures.low_rank import low_rank

GAMMA = 16.0
"""What the start is divided by."""
TOLERANCE = 1e-6


@adapter(
    "lora-ga",
    paper="Wang 2024, arXiv 2407.05000",
    expression="Sum(Dense, Chain(Dense*, Dense*))",
    task_gradient=True,
    scaled=True,
)
def lora_ga(layer: Layer) -> Start:
    """W - s B A + s B A with A the first r right, B the next r left singular vectors of the mean gradient.

    Both are multiplied by `out^(1/4) / gamma^(1/2)` (the paper's stable scale). The first step of gradient descent then
    changes B A by the gradient's best approximation of rank 2 r. A matrix with fewer than 2 r singular vectors takes
    the last r for B.

    Raises:
        Refused: no gradient reached the matrix, or the rank is beyond it.
    """
    rank = check_rank(layer)
    if layer.gradient is None:
        raise Refused("the loss does not depend on this matrix: leave it out with exclude")
    count = min(2 * rank, *layer.weight.shape)
    u, _, vh = truncated_svd(layer.gradient, count, tolerance=TOLERANCE, generator=layer.generator)
    size = layer.weight.shape[0] ** 0.25 / GAMMA**0.5
    left, right = size * u[:, count - rank :], size * vh[:rank]
    return Start(low_rank(left.to(layer.dtype).contiguous(), right.to(layer.dtype).contiguous()), split=True)
