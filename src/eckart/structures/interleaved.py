"""Copies of one matrix, interleaved: the Kronecker product with an identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.leaves import size_option
from eckart.structures.transposed import apply_transposed


@structure("interleaved")
class Interleaved(StructuredMatrix):
    """W = matrix kron I: with the input as rows of `copies` entries, every column meets the same matrix.

    Args:
        matrix: (out / copies, in / copies).
        copies: size of the identity.
    """

    def __init__(self, matrix: StructuredMatrix, *, copies: int) -> None:
        if not isinstance(matrix, StructuredMatrix):
            raise TypeError(f"Interleaved takes a structure, got {type(matrix).__name__}; wrap a tensor in Dense")
        size_option("Interleaved", "copies", copies)
        super().__init__((matrix.shape[0] * copies, matrix.shape[1] * copies))
        self.matrix = matrix
        self.copies = copies

    def options(self) -> dict[str, int]:
        return {"copies": self.copies}

    def operands(self) -> list[StructuredMatrix]:
        return [self.matrix]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.matrix(self.columns(x))
        return y.mT.flatten(-2)

    def columns(self, x: Tensor) -> Tensor:
        """x (..., n * copies) as (..., copies, n): what each of the copies meets."""
        return x.reshape(*x.shape[:-1], x.shape[-1] // self.copies, self.copies).mT

    def to_dense(self) -> Tensor:
        dense = self.matrix.to_dense().contiguous()
        return torch.kron(dense, torch.eye(self.copies, dtype=dense.dtype, device=dense.device))

    def rows(self, index: Tensor) -> Tensor:
        index = index.long()
        picked = self.matrix.rows(index // self.copies)
        place = F.one_hot(index % self.copies, self.copies).to(picked)
        return (picked[..., None] * place[..., None, :]).flatten(-2)

    def cost(self) -> Cost:
        own = self.matrix.cost()
        return Cost(own.parameters, own.bytes, own.macs * self.copies)


@apply_transposed.register
def _(matrix: Interleaved, x: Tensor) -> Tensor:
    return apply_transposed(matrix.matrix, matrix.columns(x)).mT.flatten(-2)
