"""Kronecker products of two matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.leaves import float_leaf


def apply_kronecker(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    """`(left kron right) x` for every vector of x, by two small products in the cheaper order.

    With X the matrix whose rows, one after the other, are x: (A kron B) vec(X) = vec(A X B^T).

    Args:
        left: A, (a, b).
        right: B, (c, d).
        x: (..., b d).

    Returns:
        (..., a c).
    """
    (a, b), (c, d) = left.shape, right.shape
    X = x.reshape(-1, b, d)
    left_first, right_first = _macs(a, b, c, d)
    y = (left @ X) @ right.T if left_first < right_first else left @ (X @ right.T)
    return y.reshape(*x.shape[:-1], a * c)


def _macs(a: int, b: int, c: int, d: int) -> tuple[int, int]:
    return a * b * d + a * d * c, b * d * c + a * b * c


@structure("kronecker")
class Kronecker(StructuredMatrix):
    """W = left kron right: ab + cd numbers for a matrix of ac x bd.

    Args:
        left: (a, b), floating point.
        right: (c, d), of the same dtype.
    """

    left: nn.Parameter
    right: nn.Parameter

    def __init__(self, left: Tensor, right: Tensor) -> None:
        a, b = float_leaf("Kronecker", "left", left, 2).shape
        c, d = float_leaf("Kronecker", "right", right, 2).shape
        if left.dtype != right.dtype:
            raise ValueError(f"Kronecker needs factors of one dtype, got {left.dtype} and {right.dtype}")
        super().__init__((a * c, b * d))
        self.leaf("left", left)
        self.leaf("right", right)

    def forward(self, x: Tensor) -> Tensor:
        return apply_kronecker(self.left, self.right, x)

    def to_dense(self) -> Tensor:
        return torch.kron(self.left.contiguous(), self.right.contiguous())

    def rows(self, index: Tensor) -> Tensor:
        index, c = index.long(), self.right.shape[0]
        return (self.left[index // c][..., :, None] * self.right[index % c][..., None, :]).flatten(-2)

    def cost(self) -> Cost:
        cost = super().cost()
        return Cost(cost.parameters, cost.bytes, min(_macs(*self.left.shape, *self.right.shape)))
