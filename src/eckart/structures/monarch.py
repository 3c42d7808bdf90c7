"""Two block-diagonal matrices with the transposition of a table between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.structures._checks import float_leaf
from eckart.structures.base import StructuredMatrix, structure
from eckart.structures.transposed import apply_transposed


@structure("monarch")
class Monarch(StructuredMatrix):
    """W = P_2 diag(L_1, ..., L_a) P_1 diag(R_1, ..., R_b): a x b blocks of rank r, each the product of two slices.

    Row k of L_i makes output k a + i, and reads r numbers from each R_j, which reads the j-th part of the input. P_1
    and P_2 are transpositions of tables, and not stored: they are how the results of two batched products are laid out.

    Args:
        left: (a, out / a, b r), floating point.
        right: (b, a r, in / b), of the same dtype.
    """

    left: nn.Parameter
    right: nn.Parameter

    def __init__(self, left: Tensor, right: Tensor) -> None:
        a, rows, inner = float_leaf("Monarch", "left", left, 3).shape
        b, outer, columns = float_leaf("Monarch", "right", right, 3).shape
        if left.dtype != right.dtype:
            raise Refused(f"Monarch needs factors of one dtype, got {left.dtype} and {right.dtype}")
        if not (a and b) or inner * a != outer * b or inner % b:
            raise Refused(
                f"Monarch: {a} blocks that read {inner} numbers each do not fit {b} blocks that make {outer} each"
            )
        super().__init__((a * rows, b * columns))
        self.leaf("left", left)
        self.leaf("right", right)

    @classmethod
    def from_blocks(cls, left: Tensor, right: Tensor) -> Monarch:
        """The matrix whose rows i, a + i, 2 a + i, ... and j-th part of the columns are left[i, j] @ right[i, j].

        Args:
            left: (a, b, out / a, r).
            right: (a, b, r, in / b).
        """
        return cls(left.transpose(1, 2).flatten(2).contiguous(), right.transpose(0, 1).flatten(1, 2).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left, self.right
        (a, _, inner), (b, outer, columns) = left.shape, right.shape
        y = torch.bmm(x.reshape(-1, b, columns).transpose(0, 1), right.mT)
        y = y.view(b, -1, a, outer // a).permute(2, 1, 0, 3).reshape(a, -1, inner)
        return torch.bmm(y, left.mT).permute(1, 2, 0).reshape(*x.shape[:-1], self.shape[0])

    def to_dense(self) -> Tensor:
        (a, rows, _), (b, outer, columns) = self.left.shape, self.right.shape
        rank = outer // a
        left = self.left.view(a, rows, b, rank).transpose(1, 2)
        blocks = left @ self.right.view(b, a, rank, columns).transpose(0, 1)  # (a, b, rows, columns)
        return blocks.permute(2, 0, 1, 3).reshape(self.shape)

    def rows(self, index: Tensor) -> Tensor:
        (a, _, _), (b, outer, _) = self.left.shape, self.right.shape
        flat = index.reshape(-1).long()
        picked = self.left[flat % a, flat // a].view(-1, b, 1, outer // a)
        place = F.one_hot(flat % a, a).to(self.dtype)[:, None, :, None]
        y = (picked * place).flatten(2).transpose(0, 1)  # (b, n, a r)
        return torch.bmm(y, self.right).transpose(0, 1).reshape(*index.shape, self.shape[1])


@apply_transposed.register
def _(matrix: Monarch, x: Tensor) -> Tensor:
    (a, rows, _), (b, outer, _) = matrix.left.shape, matrix.right.shape
    y = torch.bmm(x.reshape(-1, rows, a).permute(2, 0, 1), matrix.left)
    y = y.view(a, -1, b, outer // a).permute(2, 1, 0, 3).reshape(b, -1, outer)
    return torch.bmm(y, matrix.right).transpose(0, 1).reshape(*x.shape[:-1], matrix.shape[1])
