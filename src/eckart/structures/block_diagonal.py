"""Block-diagonal matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.structures._checks import float_leaf
from eckart.structures.base import StructuredMatrix, structure


def apply_blocks(weight: Tensor, x: Tensor) -> Tensor:
    """`diag(W_1, ..., W_b) x` for every vector of x, one batched product.

    Args:
        weight: (b, c, d), the blocks.
        x: (..., b d).

    Returns:
        (..., b c).
    """
    blocks, out, columns = weight.shape
    batch = x.reshape(-1, blocks, columns).transpose(0, 1)
    y = torch.bmm(batch, weight.mT).transpose(0, 1)
    return y.reshape(*x.shape[:-1], blocks * out)


@structure("block-diagonal")
class BlockDiagonal(StructuredMatrix):
    """W = diag(W_1, ..., W_b), blocks of one shape: 1/b of the numbers of the dense matrix.

    Args:
        weight: (blocks, out / blocks, in / blocks), floating point.
    """

    weight: nn.Parameter

    def __init__(self, weight: Tensor) -> None:
        blocks, out, columns = float_leaf("BlockDiagonal", "weight", weight, 3).shape
        super().__init__((blocks * out, blocks * columns))
        self.leaf("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return apply_blocks(self.weight, x)

    def to_dense(self) -> Tensor:
        blocks, out, columns = self.weight.shape
        dense = self.weight.new_zeros(blocks, out, blocks, columns)
        k = torch.arange(blocks, device=self.device)
        dense[k, :, k] = self.weight
        return dense.reshape(self.shape)

    def rows(self, index: Tensor) -> Tensor:
        blocks, out, _ = self.weight.shape
        index = index.long()
        block, row = index // out, index % out
        place = F.one_hot(block, blocks).to(self.dtype)
        picked = place[..., None] * self.weight[block, row][..., None, :]
        return picked.reshape(*index.shape, self.shape[1])
