"""Matrices whose entries are a kernel of a row's and a column's vector, the largest of them kept."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from eckart.errors import Refused
from eckart.ops.order_statistics import kth_largest
from eckart.structures._checks import float_leaf, index_leaf
from eckart.structures.base import Cost, StructuredMatrix, structure


def distances(left: Tensor, right: Tensor) -> Tensor:
    """|a_i - b_j|: left (..., m, k), right (..., n, k) -> (..., m, n).

    As the root of |a|^2 + |b|^2 - 2 a b, which is one product of matrices.
    """
    a = torch.cat([-2 * left, left.square().sum(-1, keepdim=True), torch.ones_like(left[..., :1])], -1)
    b = torch.cat([right, torch.ones_like(right[..., :1]), right.square().sum(-1, keepdim=True)], -1)
    # Its own product also where autocast would round it: what is left of the squares may be small.
    with torch.autocast(left.device.type, enabled=False):
        squares: Tensor = a @ b.mT
    return squares.clamp_min_(torch.finfo(left.dtype).tiny).sqrt_()


class _Kernel(torch.autograd.Function):
    """(left, right, kept, scale) -> W (out, in), of which only the factors are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, kept: int, scale: float) -> Tensor:
        first, second = distances(left, right)
        w: Tensor = first.sub_(second).mul_(scale)
        least = w.new_zeros(())
        if kept < w.numel():
            least = kth_largest(w.abs().view(1, -1), kept).squeeze()
            # What is above the next smaller number is what is at least as large.
            w = F.hardshrink(w, float(least.nextafter(torch.zeros_like(least))))
        ctx.save_for_backward(left, right, least)
        ctx.scale = scale
        return w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        left, right, least = ctx.saved_tensors
        apart = distances(left, right)
        w = (apart[0] - apart[1]).mul_(ctx.scale)
        g = (g * ctx.scale).masked_fill_(w.abs_() < least, 0.0)
        # Where a = b the distance has no gradient, and rounding errors here.
        apart.masked_fill_(apart <= 2 * torch.finfo(g.dtype).tiny ** 0.5, float("inf"))
        slopes = torch.div(g, apart, out=apart)
        return _pull(left, right, slopes), _pull(right, left, slopes.mT), None, None


def _pull(left: Tensor, right: Tensor, slopes: Tensor) -> Tensor:
    """sum_j slopes_ij (a_i - b_j), of the second pair with the other sign: the gradient of a."""
    summed = F.pad(right, (0, 1), value=1.0).mT @ slopes.mT
    pulled = (summed[:, -1:] * left.mT - summed[:, :-1]).mT
    return pulled * pulled.new_tensor([1.0, -1.0])[:, None, None]


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
            raise Refused(
                f"Kernelized needs factors (2, out, k) and (2, in, k) of one dtype, got {left.dtype} of shape "
                f"{tuple(left.shape)} and {right.dtype} of shape {tuple(right.shape)}"
            )
        kept = index_leaf("Kernelized", "kept", kept, 1, out * columns, torch.int64)
        if kept.shape[0] != 1:
            raise Refused(f"Kernelized: kept must be one number, got {kept.shape[0]}")
        if not isinstance(scale, int | float) or not math.isfinite(scale):
            raise Refused(f"Kernelized needs a finite scale, got {scale!r}")
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
        w: Tensor = _Kernel.apply(self.left.to(wide), self.right.to(wide), int(self.kept), self.scale)  # type: ignore[no-untyped-call]
        return w.to(self.dtype)

    def cost(self) -> Cost:
        own = super().cost()
        out, columns = self.shape
        return Cost(own.parameters, own.bytes, out * columns)

    def check_values(self) -> None:
        out, columns = self.shape
        if not 1 <= int(self.kept) <= out * columns:
            raise Refused(f"Kernelized: kept is {int(self.kept)}, outside 1..{out * columns}")
