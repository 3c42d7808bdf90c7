"""A matrix of which the entries with the largest scores act, the scores being a structure that trains."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from eckart.errors import Refused
from eckart.ops.order_statistics import largest
from eckart.structures._checks import flag_option, index_leaf
from eckart.structures.base import Cost, StructuredMatrix, structure


class _Chosen(torch.autograd.Function):
    """(W, T, kept, magnitudes) -> M * W, M being 1 where S = |W| + T (or T) is among the `kept` largest, else 0.

    The slope of the choice is taken as that of the identity ("straight through"): dS = dM = G * W, for entries that do
    not act too, and W gets sign(W) dS beside M * G where its magnitude is a part of S.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, t: Tensor, kept: int, magnitudes: bool) -> Tensor:
        scores = w.abs() + t if magnitudes else t
        chosen = largest(scores.reshape(1, -1), kept).view(w.shape)
        ctx.save_for_backward(w, chosen)
        ctx.magnitudes = magnitudes
        return w * chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        w, chosen = ctx.saved_tensors
        moved = g * w
        return g * (chosen + w.abs()) if ctx.magnitudes else g * chosen, moved, None, None


@structure("scored")
class Scored(StructuredMatrix):
    """The entries of W that have the `kept` largest scores |W| + T (or T alone), and zeros elsewhere.

    What is stored is W and T, and all of both can train: an entry that does not act gets no gradient, its score gets
    one. W is formed for every product. Of scores that are equal at the limit the first ones act.

    Args:
        matrix: W.
        scores: T, of the same shape.
        kept: (1,), integer, 1 to out * in.
        magnitudes: whether |W| is a part of the score.
    """

    kept: Tensor

    def __init__(
        self, matrix: StructuredMatrix, scores: StructuredMatrix, kept: Tensor, *, magnitudes: bool = True
    ) -> None:
        for child in (matrix, scores):
            if not isinstance(child, StructuredMatrix):
                raise TypeError(f"Scored takes structures, got {type(child).__name__}; wrap a tensor in Dense")
        if matrix.shape != scores.shape:
            raise Refused(f"Scored: scores {scores.shape} are not of the matrix {matrix.shape}")
        out, columns = matrix.shape
        kept = index_leaf("Scored", "kept", kept, 1, out * columns, torch.int64)
        if kept.shape[0] != 1:
            raise Refused(f"Scored: kept must be one number, got {kept.shape[0]}")
        super().__init__((out, columns))
        self.matrix, self.scores = matrix, scores
        self.leaf("kept", kept)
        self.magnitudes = flag_option("Scored", "magnitudes", magnitudes)

    def options(self) -> dict[str, Any]:
        return {"magnitudes": self.magnitudes}

    def operands(self) -> list[StructuredMatrix]:
        return [self.matrix, self.scores]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.to_dense())

    def to_dense(self) -> Tensor:
        # In its own precision also where autocast would round it: what is chosen may hang on the last bits.
        with torch.autocast(self.device.type, enabled=False):
            w, t = self.matrix.to_dense(), self.scores.to_dense()
            wide = torch.promote_types(torch.promote_types(w.dtype, t.dtype), torch.float32)
            chosen: Tensor = _Chosen.apply(w.to(wide), t.to(wide), int(self.kept), self.magnitudes)  # type: ignore[no-untyped-call]
        return chosen.to(w.dtype)

    def cost(self) -> Cost:
        own = super().cost()
        out, columns = self.shape
        return Cost(own.parameters, own.bytes, out * columns)

    def check_values(self) -> None:
        super().check_values()
        out, columns = self.shape
        if not 1 <= int(self.kept) <= out * columns:
            raise Refused(f"Scored: kept is {int(self.kept)}, outside 1..{out * columns}")
