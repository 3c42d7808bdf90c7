"""A structure that another matrix owns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.structures.base import Cost, StructuredMatrix, structure
from eckart.structures.transposed import apply_transposed


@structure("shared")
class Shared(StructuredMatrix):
    """Reads a structure that is part of another matrix, which owns the tensors; costs multiply-adds, but no bytes.

    Args:
        owner: the structure; it may not read a third one. None where it is not known yet, see `bind`.
        shape: of the owner, where that is not known.
        of: where the owner is: the name of its matrix, then the position of each operand on the way to it, joined by
            "/". `locate` and `bind` fill in one of `owner` and `of` from the other.
    """

    def __init__(
        self, owner: StructuredMatrix | None = None, *, shape: tuple[int, int] | None = None, of: str = ""
    ) -> None:
        if owner is None and (shape is None or not isinstance(of, str) or not of):
            raise Refused(f"Shared needs an owner, or a shape and where the owner is, got {shape} and {of!r}")
        super().__init__(owner.shape if owner is not None else shape)  # type: ignore[arg-type]
        self.of = of
        self._owner: tuple[StructuredMatrix, ...] = ()
        if owner is not None:
            self.bind(owner)

    @property
    def owner(self) -> StructuredMatrix:
        if not self._owner:
            raise Refused(f"the structure shared from {self.of} was not loaded with its owner")
        return self._owner[0]

    def bind(self, owner: StructuredMatrix) -> None:
        """Sets the owner; Refused where it has another shape, or reads a third structure itself."""
        if owner.shape != self.shape:
            raise Refused(f"a structure of shape {owner.shape} was shared as one of {self.shape}")
        if any(isinstance(part, Shared) for part in owner.modules()):
            raise Refused(f"the structure shared from {self.of or 'here'} is itself shared from elsewhere")
        # In a tuple, so that the tensors are registered once, at their owner.
        self._owner = (owner,)

    @property
    def linear(self) -> bool:
        return self.owner.linear

    @property
    def dtype(self) -> torch.dtype:
        return self.owner.dtype

    @property
    def device(self) -> torch.device:
        return self.owner.device

    def forward(self, x: Tensor) -> Tensor:
        return self.owner.forward(x)

    def to_dense(self) -> Tensor:
        return self.owner.to_dense()

    def rows(self, index: Tensor) -> Tensor:
        return self.owner.rows(index)

    def cost(self) -> Cost:
        return Cost(0, 0, self.owner.cost().macs)

    def options(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "of": self.of}


def locate(matrices: Mapping[str, StructuredMatrix]) -> None:
    """Tells each `Shared` in some matrices, by name, where its owner is; Refused where none of them holds it."""
    places = {id(part): where for name, matrix in matrices.items() for where, part in _walk(matrix, name)}
    for name, part in _shared(matrices):
        if id(part.owner) not in places:
            raise Refused(f"{name} shares a structure with a matrix that is not there any more")
        part.of = places[id(part.owner)]


def bind(matrices: Mapping[str, StructuredMatrix]) -> None:
    """Gives each `Shared` in some matrices, by name, its owner; Refused where there is none at its place."""
    found = {where: part for name, matrix in matrices.items() for where, part in _walk(matrix, name)}
    for name, part in _shared(matrices):
        if part.of not in found:
            raise Refused(f"{name} shares a structure with {part.of[:80]!r}, which is not there")
        try:
            part.bind(found[part.of])
        except Refused as error:
            raise Refused(f"{name}: {error}") from error


def _walk(part: StructuredMatrix, where: str) -> Iterator[tuple[str, StructuredMatrix]]:
    yield where, part
    for i, child in enumerate(part.operands()):
        yield from _walk(child, f"{where}/{i}")


def _shared(matrices: Mapping[str, StructuredMatrix]) -> Iterator[tuple[str, Shared]]:
    for name, matrix in matrices.items():
        yield from ((name, part) for part in matrix.modules() if isinstance(part, Shared))


@apply_transposed.register
def _(matrix: Shared, x: Tensor) -> Tensor:
    return apply_transposed(matrix.owner, x)
