"""Moments put together from what was measured."""

from __future__ import annotations

from torch import Tensor

from eckart.statistics.needs import Need, Statistics


def covariance(statistics: Statistics) -> Tensor:
    """E[x x^T] - E[x] E[x]^T, (in, in), or its diagonal (in,) where only that of E[x x^T] was kept; float64."""
    mean, moment = statistics.get(Need.INPUT_MEAN), statistics.get(Need.INPUT_SECOND_MOMENT)
    return moment - mean.square() if moment.ndim == 1 else moment.addr(mean, mean, alpha=-1)


def bias_mean(statistics: Statistics) -> Tensor | None:
    """E[x] (in,), float64, from which a bias is made; None for a table of look-ups, which takes no bias."""
    return None if statistics.lookup else statistics.get(Need.INPUT_MEAN)
