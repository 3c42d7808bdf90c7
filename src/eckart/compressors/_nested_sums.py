"""The family of sums of one matrix: every number of terms from one decomposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eckart.compressors.contract import Fitted
from eckart.structures.base import Cost, StructuredMatrix

MOST = 32
"""Candidates of a matrix are at most so many, evenly spread."""


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
        ValueError: the squared error overflows float64.
    """
    w = blocks.detach().double()
    # A power of two, so that scaling by it is exact.
    scale = 2.0 ** min(1000, max(-1000, int(torch.frexp(w.abs().max()).exponent)))
    u, s, vh = torch.linalg.svd(w / scale, full_matrices=False)
    squares = s.square().reshape(-1, s.shape[-1]).sum(0)
    tails = torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)]) * scale * scale
    if not torch.isfinite(tails).all():
        raise ValueError(
            f"the squared error overflows float64: entries of the weight are up to {scale:.0e}; scale them down"
        )
    root = (s * scale).sqrt()
    return u * root[..., None, :], root[..., :, None] * vh, tails


@dataclass
class Terms:
    """Sums of the first 1, 2, ... terms of a decomposition as candidates; see `eckart.compressors.contract.Family`.

    Attributes:
        weight: W (out, in).
        tails: squared error with 0, 1, ..., k terms, float64, (k + 1,); the last one is zero.
        cost: of a number of terms; grows with it.
        assemble: the structure of a number of terms, in the dtype of the weight.
    """

    weight: Tensor
    tails: Tensor
    cost: Callable[[int], Cost]
    assemble: Callable[[int], StructuredMatrix]

    @cached_property
    def sizes(self) -> Sequence[int]:
        """Numbers of terms that cost fewer bytes than the dense matrix, `MOST` at most."""
        dense = self.weight.numel() * self.weight.element_size()
        paying = sum(self.cost(terms).bytes < dense for terms in range(1, len(self.tails)))
        step = max(1, -(-paying // MOST))
        return range(step, paying + 1, step)

    @property
    def costs(self) -> Sequence[Cost]:
        return [self.cost(terms) for terms in self.sizes]

    @property
    def errors(self) -> Tensor:
        return self.tails[list(self.sizes)]

    @property
    def zero_error(self) -> float:
        """The squared norm of W."""
        return float(self.tails[0])

    def build(self, size: int) -> Fitted:
        """The candidate of `size` terms, also where it does not pay: with all of them it is W."""
        if not 1 <= size < len(self.tails):
            raise ValueError(f"a matrix of shape {tuple(self.weight.shape)} has 1 to {len(self.tails) - 1} terms here")
        return Fitted(self.assemble(size), None, float(self.tails[size]))


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`.

    >>> largest_divisor(576, 8), largest_divisor(12, 8), largest_divisor(13, 8)
    (8, 6, 1)
    """
    return next(d for d in range(most, 0, -1) if n % d == 0)
