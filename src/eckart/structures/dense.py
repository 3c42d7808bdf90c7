"""The matrix itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.dense import DENSE
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.structures._fused import part
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
        self._product = Product(DENSE)

    def forward(self, x: Tensor) -> Tensor:
        # From the registry: the attribute takes a third of the time of a small product.
        weight = self._parameters["weight"]
        # PyTorch is as fast in float32, and for several vectors.
        one = weight.dtype != torch.float32 and x.numel() == self.shape[1]  # type: ignore[union-attr]
        y = self._product(x, (weight,), ()) if one else None
        return F.linear(x, weight) if y is None else y  # type: ignore[arg-type]

    def affine(self, x: Tensor, bias: Tensor) -> Tensor:
        weight = self._parameters["weight"]
        if weight.dtype == torch.float32 and bias.dtype == torch.float32:  # type: ignore[union-attr]
            return F.linear(x, weight, bias)  # type: ignore[arg-type]
        return self.forward(x) + bias

    def recipe(self) -> Recipe:
        return ((part(self, DENSE, ("weight",)),),)

    def to_dense(self) -> Tensor:
        return self.weight

    def rows(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)
