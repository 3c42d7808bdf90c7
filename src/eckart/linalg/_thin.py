"""Products that pass through fewer numbers than they read and make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.linalg._operators import adjoint_product, product
from eckart.structures import Chain, Scaled, StructuredMatrix


@dataclass(frozen=True)
class Thin:
    """L R of rank r at most.

    Attributes:
        left: L (out, r), float64.
        right: R (r, in).
    """

    left: Tensor
    right: Tensor

    @classmethod
    def beside(cls, terms: Sequence[Thin]) -> Thin:
        """Their sum as one."""
        return cls(torch.cat([term.left for term in terms], 1), torch.cat([term.right for term in terms]))


def split(matrix: StructuredMatrix) -> Thin | None:
    """A chain cut where it is thinnest, if that is less than both of its sides; gradients reach its leaves."""
    if isinstance(matrix, Scaled):
        inner = split(matrix.matrix)
        return None if inner is None else Thin(matrix.scale * inner.left, inner.right)
    if not isinstance(matrix, Chain) or len(matrix.operands()) < 2:
        return None
    parts = matrix.operands()
    widths = [part.shape[1] for part in parts[:-1]]
    rank = min(widths)
    if rank >= min(matrix.shape):
        return None
    cut = widths.index(rank) + 1
    eye = torch.eye(rank, dtype=torch.float64, device=matrix.device)
    left, right = eye, eye
    for part in reversed(parts[:cut]):
        left = product(part, left)
    for part in parts[cut:]:
        right = adjoint_product(part, right.T).T
    return Thin(left, right)
