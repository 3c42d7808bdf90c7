"""What the Kronecker products of a matrix with an identity, in either order, have in common."""

from __future__ import annotations

from eckart.structures._checks import size_option
from eckart.structures.base import Cost, StructuredMatrix


class Copies(StructuredMatrix):
    """One matrix that several parts of the input meet.

    Args:
        matrix: (out / copies, in / copies).
        copies: how many parts.
    """

    def __init__(self, matrix: StructuredMatrix, *, copies: int) -> None:
        name = type(self).__name__
        if not isinstance(matrix, StructuredMatrix):
            raise TypeError(f"{name} takes a structure, got {type(matrix).__name__}; wrap a tensor in Dense")
        size_option(name, "copies", copies)
        super().__init__((matrix.shape[0] * copies, matrix.shape[1] * copies))
        self.matrix = matrix
        self.copies = copies

    def options(self) -> dict[str, int]:
        return {"copies": self.copies}

    def operands(self) -> list[StructuredMatrix]:
        return [self.matrix]

    def cost(self) -> Cost:
        own = self.matrix.cost()
        return Cost(own.parameters, own.bytes, own.macs * self.copies)
