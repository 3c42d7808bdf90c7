"""Copies of one matrix along the diagonal: the Kronecker product of an identity with it."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.leaves import size_option
from eckart.structures.transposed import apply_transposed


@structure("repeated")
class Repeated(StructuredMatrix):
    """W = I kron matrix: the input is cut into `copies` equal parts, each of which meets the same matrix.

    Args:
        matrix: (out / copies, in / copies).
        copies: size of the identity.
    """

    def __init__(self, matrix: StructuredMatrix, *, copies: int) -> None:
        if not isinstance(matrix, StructuredMatrix):
            raise TypeError(f"Repeated takes a structure, got {type(matrix).__name__}; wrap a tensor in Dense")
        size_option("Repeated", "copies", copies)
        super().__init__((matrix.shape[0] * copies, matrix.shape[1] * copies))
        self.matrix = matrix
        self.copies = copies

    def options(self) -> dict[str, int]:
        return {"copies": self.copies}

    def operands(self) -> list[StructuredMatrix]:
        return [self.matrix]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.matrix(self.parts(x))
        return y.flatten(-2)

    def parts(self, x: Tensor) -> Tensor:
        """x (..., copies * n) as (..., copies, n): what each of the copies meets."""
        return x.reshape(*x.shape[:-1], self.copies, x.shape[-1] // self.copies)

    def to_dense(self) -> Tensor:
        dense = self.matrix.to_dense().contiguous()
        return torch.kron(torch.eye(self.copies, dtype=dense.dtype, device=dense.device), dense)

    def cost(self) -> Cost:
        own = self.matrix.cost()
        return Cost(own.parameters, own.bytes, own.macs * self.copies)


@apply_transposed.register
def _(matrix: Repeated, x: Tensor) -> Tensor:
    return apply_transposed(matrix.matrix, matrix.parts(x)).flatten(-2)
