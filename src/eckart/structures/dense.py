"""The matrix itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.halves import HALVES
from eckart.ops.native.products import Product
from eckart.structures.base import StructuredMatrix, structure


@structure("dense")
class Dense(StructuredMatrix):
    """A matrix stored entry by entry.

    Args:
        weight: (out, in), floating point.
    """

    weight: nn.Parameter

    def __init__(self, weight: Tensor) -> None:
        if weight.ndim != 2 or not weight.is_floating_point():
            raise Refused(f"Dense needs a floating-point matrix, got {weight.dtype} of shape {tuple(weight.shape)}")
        super().__init__((weight.shape[0], weight.shape[1]))
        self.leaf("weight", weight)
        self._product = Product(HALVES)

    def forward(self, x: Tensor) -> Tensor:
        # From the registry: the attribute takes a third of the time of a small product.
        weight = self._parameters["weight"]
        y = None if weight.dtype == torch.float32 else self._product(x, (weight,), ())  # type: ignore[union-attr]
        return F.linear(x, weight) if y is None else y  # type: ignore[arg-type]

    def to_dense(self) -> Tensor:
        return self.weight

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)
