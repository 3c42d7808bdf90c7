"""Structures made of structures: a sum, a product, and outputs side by side over one input."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.programs import Recipe
from eckart.structures._fused import Fused, one_after_another, side_by_side
from eckart.structures.base import StructuredMatrix, structure
from eckart.structures.permutation import Permutation, Selection
from eckart.structures.transposed import apply_transposed


class _Compose(StructuredMatrix):
    def __init__(self, children: tuple[StructuredMatrix, ...], shape: tuple[int, int]) -> None:
        super().__init__(shape)
        self.parts = nn.ModuleList(children)

    def _parts(self) -> list[StructuredMatrix]:
        # Straight from the registry: indexing a ModuleList costs as much as a small product. For the same reason
        # `forward` calls its parts' `forward`, so hooks belong on the module that holds the tree, not inside it.
        modules: Any = self._modules["parts"]
        return list(modules._modules.values())

    def operands(self) -> list[StructuredMatrix]:
        return list(self.parts)  # type: ignore[arg-type]

    def _dense(self, part: StructuredMatrix) -> Tensor:
        part.check_linear()
        # A part without float leaves has no dtype of its own: it takes this structure's.
        if any(p.is_floating_point() for p in part.parameters()):
            return part.to_dense().to(self.dtype)
        part_dense: Tensor = part(torch.eye(part.shape[1], dtype=self.dtype, device=self.device)).T
        return part_dense

    def _rows(self, part: StructuredMatrix, index: Tensor) -> Tensor:
        part.check_linear()
        if any(p.is_floating_point() for p in part.parameters()):
            return part.rows(index).to(self.dtype)
        return apply_transposed(part, F.one_hot(index.long(), part.shape[0]).to(self.dtype))


def _shapes(name: str, children: tuple[StructuredMatrix, ...]) -> list[tuple[int, int]]:
    if not children:
        raise Refused(f"{name} needs at least one matrix")
    for child in children:
        if not isinstance(child, StructuredMatrix):
            raise TypeError(f"{name} takes structures, got {type(child).__name__}; wrap a tensor in Dense")
    return [child.shape for child in children]


class _Fusable(_Compose):
    """One whose parts are multiplied in one call, where all of them are compiled and there are few vectors."""

    def __init__(self, children: tuple[StructuredMatrix, ...], shape: tuple[int, int]) -> None:
        super().__init__(children, shape)
        self._fused = Fused()

    def forward(self, x: Tensor) -> Tensor:
        y = self._fused(self, x)
        return self._in_turns(x) if y is None else y

    def affine(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self._fused(self, x, bias)
        return self._in_turns(x) + bias if y is None else y

    def _in_turns(self, x: Tensor) -> Tensor:
        """The product, part by part."""
        raise NotImplementedError

    def _recipes(self) -> list[Recipe] | None:
        found = [part.recipe() for part in self.operands()]
        kept = [recipe for recipe in found if recipe is not None]
        return kept if len(kept) == len(found) else None


@structure("sum")
class Sum(_Fusable):
    """W = W_1 + W_2 + ..., all of one shape."""

    def __init__(self, *children: StructuredMatrix) -> None:
        shapes = _shapes("Sum", children)
        if len(set(shapes)) > 1:
            raise Refused(f"Sum needs equal shapes, got {', '.join(map(str, shapes))}")
        super().__init__(children, shapes[0])

    def _in_turns(self, x: Tensor) -> Tensor:
        first, *others = self._parts()
        y = first.forward(x)
        for part in others:
            y = y + part.forward(x)
        return y

    def recipe(self) -> Recipe | None:
        found = self._recipes()
        return None if found is None else side_by_side(found)

    def to_dense(self) -> Tensor:
        first, *others = self.operands()
        y = self._dense(first)
        for part in others:
            y = y + self._dense(part)
        return y

    def rows(self, index: Tensor) -> Tensor:
        first, *others = self.operands()
        y = self._rows(first, index)
        for part in others:
            y = y + self._rows(part, index)
        return y


@structure("chain")
class Chain(_Fusable):
    """The product W = W_1 W_2 ... W_k, applied from the right: the last factor sees the input first."""

    def __init__(self, *children: StructuredMatrix) -> None:
        shapes = _shapes("Chain", children)
        for left, right in pairwise(shapes):
            if left[1] != right[0]:
                raise Refused(f"Chain: shapes do not multiply: {' @ '.join(map(str, shapes))}")
        super().__init__(children, (shapes[0][0], shapes[-1][1]))

    def _in_turns(self, x: Tensor) -> Tensor:
        for part in reversed(self._parts()):
            x = part.forward(x)
        return x

    def recipe(self) -> Recipe | None:
        found = self._recipes()
        return None if found is None else one_after_another(found[::-1])

    def to_dense(self) -> Tensor:
        self.check_linear()  # a factor that depends on its input would be applied to the others without a word
        # From the smallest factor outwards: the others are applied to it, not written out.
        parts = self.operands()
        start = min(range(len(parts)), key=lambda i: parts[i].shape[0] * parts[i].shape[1])
        y = self._dense(parts[start])
        for part in parts[start + 1 :]:
            y = apply_transposed(part, y)
        for part in reversed(parts[:start]):
            y = part(y.T).T
        return y

    def rows(self, index: Tensor) -> Tensor:
        # (W_1 ... W_k)[i] = W_1[i] W_2 ... W_k; a factor that only picks rows renames i.
        first, *others = self.operands()
        while others and (isinstance(first, Permutation) or (isinstance(first, Selection) and not first.adjoint)):
            index = first.index[index.long()]
            first, *others = others
        y = self._rows(first, index)
        for part in others:
            y = apply_transposed(part, y)
        return y


@structure("stack")
class Stack(_Compose):
    """W = [W_1; W_2; ...]: matrices that read the same input, their outputs one after the other."""

    def __init__(self, *children: StructuredMatrix) -> None:
        shapes = _shapes("Stack", children)
        if len({columns for _, columns in shapes}) > 1:
            raise Refused(f"Stack needs matrices of one input width, got {', '.join(map(str, shapes))}")
        super().__init__(children, (sum(out for out, _ in shapes), shapes[0][1]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part.forward(x) for part in self._parts()], -1)

    def to_dense(self) -> Tensor:
        return torch.cat([self._dense(part) for part in self.operands()])

    def rows(self, index: Tensor) -> Tensor:
        y = torch.zeros(*index.shape, self.shape[1], dtype=self.dtype, device=self.device)
        start = 0
        for part in self.operands():
            local = index.long() - start
            inside = (local >= 0) & (local < part.shape[0])
            y = torch.where(inside[..., None], self._rows(part, local.clamp(0, part.shape[0] - 1)), y)
            start += part.shape[0]
        return y


@apply_transposed.register
def _(matrix: Chain, x: Tensor) -> Tensor:
    for part in matrix.operands():
        x = apply_transposed(part, x)
    return x


@apply_transposed.register
def _(matrix: Sum, x: Tensor) -> Tensor:
    first, *others = matrix.operands()
    y = apply_transposed(first, x)
    for part in others:
        y = y + apply_transposed(part, x)
    return y


@apply_transposed.register
def _(matrix: Stack, x: Tensor) -> Tensor:
    y, *others = map(
        apply_transposed, matrix.operands(), torch.split(x, [part.shape[0] for part in matrix.operands()], -1)
    )
    for other in others:
        y = y + other
    return y
