"""The singular value decompositions of many blocks at once."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.ops.powers_of_two import power_of_two


def batched_svd(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of every block, singular values shared evenly between the two factors.

    The first r columns of `left` times the first r rows of `right` are the best approximation of each block by one of
    rank r (Eckart and Young), and neither factor overflows a short dtype that the blocks fit in.

    Args:
        blocks: (..., p, q), finite.

    Returns:
        left (..., p, k), right (..., k, q), k = min(p, q), with left @ right = blocks; tails (k + 1,), the squared
        error of all blocks together at rank 0, 1, ..., k. In float64.

    Raises:
        Refused: the squared error overflows float64.
    """
    w = blocks.detach().double()
    scale = power_of_two(w)
    u, s, vh = torch.linalg.svd(w / scale, full_matrices=False)
    squares = s.square().reshape(-1, s.shape[-1]).sum(0)
    tails = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)]) * scale * scale
    if not torch.isfinite(tails).all():
        raise Refused(
            f"the squared error overflows float64: entries of the weight are up to {scale:.0e}; scale them down"
        )
    root = (s * scale).sqrt()
    return u * root[..., None, :], root[..., :, None] * vh, tails
