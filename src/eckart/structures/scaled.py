"""A structure times a constant."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from eckart.errors import Refused
from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.transposed import apply_transposed


@structure("scaled")
class Scaled(StructuredMatrix):
    """W = scale W_1. The constant is not trained: it sets the size of a gradient step on W_1.

    Args:
        matrix: W_1.
        scale: finite.
    """

    def __init__(self, matrix: StructuredMatrix, *, scale: float) -> None:
        if not isinstance(scale, int | float) or not math.isfinite(scale):
            raise Refused(f"Scaled needs a finite scale, got {scale!r}")
        super().__init__(matrix.shape)
        self.matrix = matrix
        self.scale = float(scale)

    def options(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def operands(self) -> list[StructuredMatrix]:
        return [self.matrix]

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.matrix.forward(x)

    def to_dense(self) -> Tensor:
        return self.scale * self.matrix.to_dense()

    def rows(self, index: Tensor) -> Tensor:
        return self.scale * self.matrix.rows(index)

    def cost(self) -> Cost:
        inner = self.matrix.cost()
        return Cost(inner.parameters, inner.bytes, inner.macs + self.shape[0])


@apply_transposed.register
def _(matrix: Scaled, x: Tensor) -> Tensor:
    return matrix.scale * apply_transposed(matrix.matrix, x)
