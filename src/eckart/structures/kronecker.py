"""Kronecker products of two matrices, and sums of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.structures._checks import float_leaf
from eckart.structures.base import Cost, StructuredMatrix, structure


def apply_kronecker(left: Tensor, right: Tensor, x: Tensor) -> Tensor:
    """`(left kron right) x` for every vector of x, by two products in the cheaper order, one after the other.

    With X the matrix whose rows, one after the other, are x: (A kron B) vec(X) = vec(A X B^T). A sum whose two products
    take about as many multiplications as the matrix has entries is written out for the batch instead, which moves fewer
    numbers.

    Args:
        left: A, (a, b), or (r, a, b) for a sum of r products.
        right: B, (c, d), or (r, c, d).
        x: (..., b d).

    Returns:
        (..., a c).
    """
    (a, b), (c, d) = left.shape[-2:], right.shape[-2:]
    X = x.reshape(-1, b, d)
    left_first, right_first = _macs(a, b, c, d)
    if left.ndim == 2:
        y = (left @ X) @ right.T if left_first < right_first else left @ (X @ right.T)
        return y.reshape(*x.shape[:-1], a * c)
    r = len(left)
    if 3 * r * min(left_first, right_first) > 2 * a * b * c * d and len(X) > r:
        return F.linear(x, summed(left, right))
    # Two products with all terms at once: numbers of one term stand beside those of the others, and the second sums.
    if left_first <= right_first:
        AX = (X.mT.reshape(-1, b) @ left.reshape(-1, b).T).reshape(-1, d, r, a)
        y = AX.permute(0, 3, 1, 2).reshape(-1, d * r) @ right.permute(2, 0, 1).reshape(-1, c)
        return y.reshape(*x.shape[:-1], a * c)
    XB = (X.reshape(-1, d) @ right.permute(2, 1, 0).reshape(d, -1)).reshape(-1, b, c, r)
    y = XB.transpose(1, 2).reshape(-1, b * r) @ left.permute(1, 2, 0).reshape(a, -1).T
    return y.reshape(-1, c, a).mT.reshape(*x.shape[:-1], a * c)


def summed(left: Tensor, right: Tensor) -> Tensor:
    """The sum of the products of (r, a, b) and (r, c, d), as a matrix (a c, b d)."""
    (r, a, b), (_, c, d) = left.shape, right.shape
    blocks = left.reshape(r, -1).T @ right.reshape(r, -1)
    return blocks.view(a, b, c, d).transpose(1, 2).reshape(a * c, b * d)


def _macs(a: int, b: int, c: int, d: int) -> tuple[int, int]:
    return a * b * d + a * d * c, b * d * c + a * b * c


@structure("kronecker")
class Kronecker(StructuredMatrix):
    """W = left kron right, ab + cd numbers for a matrix of ac x bd; or the sum of r such products of equal shapes.

    Args:
        left: (a, b) or (r, a, b), floating point.
        right: (c, d) or (r, c, d), of the same dtype.
    """

    left: nn.Parameter
    right: nn.Parameter

    def __init__(self, left: Tensor, right: Tensor) -> None:
        ndim = 3 if isinstance(left, Tensor) and left.ndim == 3 else 2
        *terms, a, b = float_leaf("Kronecker", "left", left, ndim).shape
        *others, c, d = float_leaf("Kronecker", "right", right, ndim).shape
        if left.dtype != right.dtype:
            raise Refused(f"Kronecker needs factors of one dtype, got {left.dtype} and {right.dtype}")
        if terms != others or terms == [0]:
            raise Refused(f"Kronecker needs as many left as right factors, got {terms[0]} and {others[0]}")
        super().__init__((a * c, b * d))
        self.leaf("left", left)
        self.leaf("right", right)

    def forward(self, x: Tensor) -> Tensor:
        return apply_kronecker(self.left, self.right, x)

    def to_dense(self) -> Tensor:
        if self.left.ndim == 2:
            return torch.kron(self.left.contiguous(), self.right.contiguous())
        return summed(self.left, self.right)

    def rows(self, index: Tensor) -> Tensor:
        index, c = index.long(), self.right.shape[-2]
        left, right = self.left[..., index // c, :], self.right[..., index % c, :]
        picked = (left[..., :, None] * right[..., None, :]).flatten(-2)
        return picked if self.left.ndim == 2 else picked.sum(0)

    def cost(self) -> Cost:
        cost = super().cost()
        macs = min(_macs(*self.left.shape[-2:], *self.right.shape[-2:]))
        return Cost(cost.parameters, cost.bytes, macs * (len(self.left) if self.left.ndim == 3 else 1))
