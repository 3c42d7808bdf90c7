"""Moments put together from what was measured."""

from __future__ import annotations

from dataclasses import replace

import torch
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
    """E[x] (in,), float64, from which a bias is made; None for a table of look-ups, or where there is to be no bias."""
    return None if statistics.lookup or not statistics.takes_bias else statistics.get(Need.INPUT_MEAN)


def without_bias(statistics: Statistics) -> Statistics:
    """The statistics of a matrix whose place takes no bias: errors in the mean output count as all others do."""
    mean = statistics.input_mean
    return replace(statistics, input_mean=None if mean is None else torch.zeros_like(mean), takes_bias=False)
