"""Matrices whose entries are a kernel of a row's and a column's vector, the largest of them kept."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.leaves import float_leaf, index_leaf


def distances(left: Tensor, right: Tensor) -> Tensor:
    """|a_i - b_j|: left (..., m, k), right (..., n, k) -> (..., m, n); the gradient where a_i = b_j is zero.

    By |a|^2 + |b|^2 - 2 a b, so that forward and backward are products of matrices.
    """
    squares = left.square().sum(-1)[..., :, None] + right.square().sum(-1)[..., None, :]
    return (squares - 2 * left @ right.mT).clamp_min(torch.finfo(left.dtype).tiny).sqrt()


@structure("kernelized")
class Kernelized(StructuredMatrix):
    """W_ij = scale (|a_i^1 - b_j^1| - |a_i^2 - b_j^2|) where that is among the `kept` largest in size, else 0.

    W has full rank from two thin factors; it is formed for every product. Equal entries at the limit are all kept.

    Args:
        left: (2, out, k), floating point: a^1 and a^2.
        right: (2, in, k), of the same dtype: b^1 and b^2.
        kept: (1,), integer, 1 to out * in.
        scale: finite.
    """

    left: nn.Parameter
    right: nn.Parameter
    kept: Tensor

    def __init__(self, left: Tensor, right: Tensor, kept: Tensor, *, scale: float) -> None:
        two, out, k = float_leaf("Kernelized", "left", left, 3).shape
        other, columns, width = float_leaf("Kernelized", "right", right, 3).shape
        if left.dtype != right.dtype or (two, other) != (2, 2) or k != width or k < 1:
            raise ValueError(
                f"Kernelized needs factors (2, out, k) and (2, in, k) of one dtype, got {left.dtype} of shape "
                f"{tuple(left.shape)} and {right.dtype} of shape {tuple(right.shape)}"
            )
        kept = index_leaf("Kernelized", "kept", kept, 1, out * columns, torch.int64)
        if kept.shape[0] != 1:
            raise ValueError(f"Kernelized: kept must be one number, got {kept.shape[0]}")
        if not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ValueError(f"Kernelized needs a finite scale, got {scale!r}")
        super().__init__((out, columns))
        self.leaf("left", left)
        self.leaf("right", right)
        self.leaf("kept", kept)
        self.scale = float(scale)

    def options(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._formed())

    def to_dense(self) -> Tensor:
        return self._formed()

    def _formed(self) -> Tensor:
        wide = torch.promote_types(self.dtype, torch.float32)
        first, second = distances(self.left.to(wide), self.right.to(wide))
        w: Tensor = self.scale * (first - second)
        drop = w.numel() - int(self.kept)
        if drop > 0:
            size = w.detach().abs()
            w = w * (size >= size.flatten().kthvalue(drop + 1).values)
        return w.to(self.dtype)

    def cost(self) -> Cost:
        own = super().cost()
        out, columns = self.shape
        return Cost(own.parameters, own.bytes, out * columns)

    def check_values(self) -> None:
        out, columns = self.shape
        if not 1 <= int(self.kept) <= out * columns:
            raise ValueError(f"Kernelized: kept is {int(self.kept)}, outside 1..{out * columns}")
