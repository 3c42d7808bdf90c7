"""Products of reflections: orthogonal matrices given by a few vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.structures._checks import float_leaf
from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.transposed import apply_transposed


def reflected(vectors: Tensor, x: Tensor, *, adjoint: bool) -> Tensor:
    """x Q^T, or x Q where `adjoint`, for Q = H(v_1) ... H(v_r), H(v) = I - 2 v v^T / |v|^2 and H(0) = I.

    All reflections at once: with unit vectors as columns of V, Q = I - V S^-1 V^T where S is upper triangular, 1/2 on
    its diagonal and V^T V above it (the compact WY form; Schreiber and Van Loan 1989, Puglisi 1992).

    Args:
        vectors: (r, n); of any length.
        x: (..., n), in the same dtype, float32 or float64.
    """
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    shortest = torch.finfo(vectors.dtype).tiny ** 0.5  # the square of its inverse, in the backward pass, is finite
    v = vectors * torch.where(norms > shortest, norms.clamp_min(shortest).reciprocal(), 0.0)
    s = (v @ v.T).triu(1) + torch.eye(len(v), dtype=v.dtype, device=v.device) / 2
    right: Tensor = torch.linalg.solve_triangular(s if adjoint else s.T, v, upper=adjoint)
    return x - (x @ v.T) @ right


@structure("householder")
class Householder(StructuredMatrix):
    """W = H(v_1) ... H(v_r), H(v) = I - 2 v v^T / |v|^2: orthogonal, whatever the vectors; H(0) = I.

    16-bit input is computed in float32.

    Args:
        vectors: (r, n), floating point.
    """

    vectors: nn.Parameter

    def __init__(self, vectors: Tensor) -> None:
        n = float_leaf("Householder", "vectors", vectors, 2).shape[1]
        super().__init__((n, n))
        self.leaf("vectors", vectors)

    def forward(self, x: Tensor) -> Tensor:
        return self.applied(x, adjoint=False)

    def applied(self, x: Tensor, *, adjoint: bool) -> Tensor:
        """W x, or W^T x where `adjoint`, for every vector of x (..., n)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return reflected(self.vectors.to(wide), x.to(wide), adjoint=adjoint).to(x.dtype)

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(own.parameters, own.bytes, 2 * own.parameters)


@apply_transposed.register
def _(matrix: Householder, x: Tensor) -> Tensor:
    return matrix.applied(x, adjoint=True)
