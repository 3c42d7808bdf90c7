"""The identity and diagonal matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.structures._checks import float_leaf, size_option
from eckart.structures.base import StructuredMatrix, structure


@structure("identity")
class Identity(StructuredMatrix):
    """W = I, stored as nothing.

    Args:
        size: number of rows and of columns.
    """

    def __init__(self, size: int) -> None:
        size_option("Identity", "size", size)
        super().__init__((size, size))

    def options(self) -> dict[str, int]:
        return {"size": self.shape[0]}

    def forward(self, x: Tensor) -> Tensor:
        return x

    def to_dense(self) -> Tensor:
        return torch.eye(self.shape[0], dtype=self.dtype, device=self.device)

    def rows(self, index: Tensor) -> Tensor:
        return F.one_hot(index.long(), self.shape[0]).to(self.dtype)


@structure("diagonal")
class Diagonal(StructuredMatrix):
    """W = diag(weight): n numbers.

    Args:
        weight: (n,), floating point.
    """

    weight: nn.Parameter

    def __init__(self, weight: Tensor) -> None:
        n = float_leaf("Diagonal", "weight", weight, 1).shape[0]
        super().__init__((n, n))
        self.leaf("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def to_dense(self) -> Tensor:
        return torch.diag(self.weight)

    def rows(self, index: Tensor) -> Tensor:
        return F.one_hot(index.long(), self.shape[0]).to(self.dtype) * self.weight
