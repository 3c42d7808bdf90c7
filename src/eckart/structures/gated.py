"""Two factors with a gate between them that depends on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.structures._checks import float_leaf, size_option
from eckart.structures.base import StructuredMatrix, structure


@structure("gated")
class Gated(StructuredMatrix):
    """y = left (mask * right x), the mask 1 at the `active` largest |right x + bias| and 0 elsewhere: no matrix.

    Args:
        left: (out, n).
        right: (n, in).
        bias: (n,), floating point; only moves the choice, so it gets no gradient.
        active: 1 to n.

    Attributes:
        tally: how often each of the n was active since this was last set to None, (n,); only counted where gradients
            are recorded.
    """

    bias: Tensor
    tally: Tensor | None

    def __init__(self, left: StructuredMatrix, right: StructuredMatrix, *, bias: Tensor, active: int) -> None:
        for child in (left, right):
            if not isinstance(child, StructuredMatrix):
                raise TypeError(f"Gated takes structures, got {type(child).__name__}; wrap a tensor in Dense")
        n = float_leaf("Gated", "bias", bias, 1).shape[0]
        if not left.shape[1] == right.shape[0] == n:
            raise Refused(f"Gated: {left.shape}, {n} gates and {right.shape} do not fit")
        if size_option("Gated", "active", active) > n:
            raise Refused(f"Gated: {active} of {n} cannot be active")
        super().__init__((left.shape[0], right.shape[1]))
        self.left, self.right, self.active = left, right, active
        self.register_buffer("bias", bias.detach())
        self.tally = None

    @property
    def linear(self) -> bool:
        return False

    def options(self) -> dict[str, Any]:
        return {"active": self.active}

    def operands(self) -> list[StructuredMatrix]:
        return [self.left, self.right]

    def forward(self, x: Tensor) -> Tensor:
        return self.opened(self.right.forward(x))

    def opened(self, y: Tensor) -> Tensor:
        """`left (mask * y)` for y = right x, (..., n) -> (..., out)."""
        chosen = (y.detach() + self.bias).abs().topk(self.active, -1).indices
        mask = torch.zeros_like(y).scatter_(-1, chosen, 1.0)
        if torch.is_grad_enabled():
            counts = chosen.flatten().bincount(minlength=len(self.bias))
            self.tally = counts if self.tally is None else self.tally + counts
        return self.left.forward(y * mask)
