"""Hidden states on one scale."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.spectrum import check

_BLOCK = 1 << 16
"""Entries that are worked on at a time, so that they stay in the cache of a core."""


def standardized(hidden: Tensor) -> Tensor:
    """Hidden states (tokens, d) less their mean over the tokens, each scaled to unit length; float64.

    Raises:
        Refused: no matrix of finite numbers, or fewer than two different states.
    """
    hidden, mean, least = _centre(hidden)
    r = hidden - mean
    length = torch.linalg.vector_norm(r, dim=1, keepdim=True)
    alive = length > least
    _check_different(alive)
    return torch.where(alive, r / torch.where(alive, length, 1.0), 0.0)


def column_norms(hidden: Tensor) -> Tensor:
    """Lengths of the columns of `standardized`, (d,), float64, without forming it.

    With r_i a state less the mean, column j has the length sqrt(sum_i r_ij^2 / ||r_i||^2): a few states at a time.

    Raises:
        Refused: as `standardized`.
    """
    hidden, mean, least = _centre(hidden)
    columns = hidden.shape[1]
    rows = min(len(hidden), max(1, _BLOCK // columns))
    held = torch.empty(rows, columns, dtype=torch.float64, device=hidden.device)
    total = torch.zeros_like(mean)
    for part in torch.split(hidden, rows):
        squares = torch.sub(part, mean, out=held[: len(part)]).square_()
        length = squares.sum(1)
        total.addmv_(squares.T, length.masked_fill_(length <= least**2, torch.inf).reciprocal_())
    _check_different(total)
    return total.sqrt_()


def _centre(hidden: Tensor) -> tuple[Tensor, Tensor, float]:
    """The states, scaled where their squares would leave the range of float64, their mean, and what is no length."""
    hidden = hidden.detach()
    if hidden.ndim != 2 or not hidden.numel():
        check(hidden)  # which refuses
    low, high = map(float, hidden.aminmax())
    scale = max(-low, high)
    if not torch.inf > scale:
        check(hidden)
    if scale > 0 and not 1e-100 < scale < 1e100:
        hidden, scale = hidden.double() / scale, 1.0
    return hidden, hidden.mean(0, dtype=torch.float64), 1e-12 * scale


def _check_different(found: Tensor) -> None:
    if not found.any():
        raise Refused("the hidden states are all the same, so they have no directions")
