"""Order statistics."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest entry of each row, k from 1: (rows, n) -> (rows, 1).

    On the processor by NumPy's partition, which uses vector instructions.
    """
    place = values.shape[1] - k
    if values.device.type != "cpu":
        return values.kthvalue(place + 1, dim=1, keepdim=True).values
    wide = values.detach().to(torch.promote_types(values.dtype, torch.float32)).numpy()
    return torch.from_numpy(numpy.partition(wide, place, axis=1)[:, place : place + 1]).to(values.dtype)


def largest(score: Tensor, kept: int) -> Tensor:
    """True at the `kept` largest scores of each row, the first of equal ones: (rows, n) -> (rows, n), bool."""
    if not 0 < kept < score.shape[1]:
        return torch.full_like(score, kept > 0, dtype=torch.bool)
    least = kth_largest(score, kept)
    above, equal = score > least, score == least
    return above | (equal & (equal.cumsum(1, dtype=torch.int32) <= kept - above.sum(1, keepdim=True)))
