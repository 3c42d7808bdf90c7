"""Codes entry by entry, and errors relative to the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart import Metric

EIGHT = ("svd-int8", "kfac-int8")


def nearest(values: Tensor, levels: Tensor, group: int) -> Tensor:
    """Every entry as the nearest level times the largest magnitude of its group, entry by entry."""
    rounded = torch.zeros_like(values)
    for i in range(values.shape[0]):
        for first in range(0, values.shape[1], group):
            part = values[i, first : first + group]
            scale = part.abs().max()
            for j, value in enumerate(part):
                if scale > 0:
                    rounded[i, first + j] = scale * levels[(value / scale - levels).abs().argmin()]
    return rounded


def relative(metric: Metric, weight: Tensor, dense: Tensor) -> float:
    return float(metric.error(weight.double() - dense.double()) / metric.error(weight.double()))
