"""Structures made of structures: a sum, a product, and outputs side by side over one input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.structures.base import Cost, StructuredMatrix, structure


class _Compose(StructuredMatrix):
    def __init__(self, children: tuple[StructuredMatrix, ...], shape: tuple[int, int]) -> None:
        super().__init__(shape)
        self.parts = nn.ModuleList(children)

    def operands(self) -> list[StructuredMatrix]:
        return list(self.parts)  # type: ignore[arg-type]


def _shapes(name: str, children: tuple[StructuredMatrix, ...]) -> list[tuple[int, int]]:
    if not children:
        raise ValueError(f"{name} needs at least one matrix")
    for child in children:
        if not isinstance(child, StructuredMatrix):
            raise TypeError(f"{name} takes structures, got {type(child).__name__}; wrap a tensor in Dense")
    return [child.shape for child in children]


@structure("sum")
class Sum(_Compose):
    """W = W_1 + W_2 + ..., all of one shape."""

    def __init__(self, *children: StructuredMatrix) -> None:
        shapes = _shapes("Sum", children)
        if len(set(shapes)) > 1:
            raise ValueError(f"Sum needs equal shapes, got {', '.join(map(str, shapes))}")
        super().__init__(children, shapes[0])

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.parts
        y: Tensor = first(x)
        for part in others:
            y = y + part(x)
        return y

    def to_dense(self) -> Tensor:
        return torch.stack([part.to_dense() for part in self.operands()]).sum(0)

    def rows(self, index: Tensor) -> Tensor:
        first, *others = self.operands()
        y = first.rows(index)
        for part in others:
            y = y + part.rows(index)
        return y


@structure("chain")
class Chain(_Compose):
    """The product W = W_1 W_2 ... W_k, applied from the right: the last factor sees the input first."""

    def __init__(self, *children: StructuredMatrix) -> None:
        shapes = _shapes("Chain", children)
        for left, right in zip(shapes, shapes[1:], strict=False):
            if left[1] != right[0]:
                raise ValueError(f"Chain: shapes do not multiply: {' @ '.join(map(str, shapes))}")
        super().__init__(children, (shapes[0][0], shapes[-1][1]))
        self._order = tuple(reversed(range(len(children))))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.parts
        for i in self._order:
            x = parts[i](x)
        return x

    def to_dense(self) -> Tensor:
        # The identity is pushed through the factors from the cheaper end.
        parts = self.operands()
        y = parts[-1].to_dense()
        for part in reversed(parts[:-1]):
            y = part(y.T).T
        return y

    def rows(self, index: Tensor) -> Tensor:
        # (W_1 ... W_k)[i] = W_1[i] W_2 ... W_k, a row vector through the remaining factors transposed.
        first, *others = self.operands()
        y = first.rows(index)
        for part in others:
            y = y @ part.to_dense().to(y.dtype)
        return y


@structure("stack")
class Stack(_Compose):
    """W = [W_1; W_2; ...]: matrices that read the same input, their outputs one after the other."""

    def __init__(self, *children: StructuredMatrix) -> None:
        shapes = _shapes("Stack", children)
        if len({columns for _, columns in shapes}) > 1:
            raise ValueError(f"Stack needs matrices of one input width, got {', '.join(map(str, shapes))}")
        super().__init__(children, (sum(out for out, _ in shapes), shapes[0][1]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], -1)

    def to_dense(self) -> Tensor:
        return torch.cat([part.to_dense() for part in self.operands()])


def low_rank(left: Tensor, right: Tensor) -> Chain:
    """W = left @ right, left (out, r), right (r, in): r (out + in) numbers."""
    from eckart.structures.dense import Dense

    return Chain(Dense(left), Dense(right))


__all__ = ["Chain", "Cost", "Stack", "Sum", "low_rank"]
