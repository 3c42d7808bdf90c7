"""Moments put together from what was measured."""

from __future__ import annotations

from torch import Tensor

from eckart.statistics.needs import Need, Statistics

RESOLUTION = 1e-7
"""An input whose variance is no more than this share of its mean square does not vary: products are in float32."""


def covariance(statistics: Statistics) -> Tensor:
    """E[x x^T] - E[x] E[x]^T, (in, in), or its diagonal (in,) where only that of E[x x^T] was kept; float64.

    Zero for an input that does not vary.
    """
    return centred(statistics.get(Need.INPUT_SECOND_MOMENT), statistics.get(Need.INPUT_MEAN))


def centred(moment: Tensor, mean: Tensor) -> Tensor:
    """`covariance` from E[x x^T] and E[x]."""
    if moment.ndim == 1:
        found = moment - mean.square()
        return found.masked_fill(found <= RESOLUTION * moment, 0.0)
    found = moment.addr(mean, mean, alpha=-1)
    still = found.diagonal() <= RESOLUTION * moment.diagonal()
    return found.masked_fill(still[:, None] | still, 0.0) if still.any() else found


def bias_mean(statistics: Statistics) -> Tensor | None:
    """E[x] (in,), float64, from which a bias is made; None for a table of look-ups, which takes no bias."""
    return None if statistics.lookup else statistics.get(Need.INPUT_MEAN)
