"""Hidden states on one scale."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.spectrum import check


def standardized(hidden: Tensor) -> Tensor:
    """Hidden states (tokens, d) less their mean over the tokens, each scaled to unit length; float64.

    Raises:
        Refused: no matrix of finite numbers, or fewer than two different states.
    """
    check(hidden)
    r = hidden.detach().double()
    r = r - r.mean(0)
    length = torch.linalg.vector_norm(r, dim=1, keepdim=True)
    scale = torch.linalg.vector_norm(hidden.double(), dim=1).max()
    alive = length > 1e-12 * scale
    if not alive.any():
        raise Refused(f"the {len(hidden)} hidden states are all the same, so they have no directions")
    return torch.where(alive, r / torch.where(alive, length, 1.0), 0.0)
