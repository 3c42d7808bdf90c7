"""The transpose of a structure, as a structure."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._operators import no_rule
from eckart.structures import (
    BlockDiagonal,
    Chain,
    Circulant,
    Cosine,
    Dense,
    Diagonal,
    Hadamard,
    Householder,
    Identity,
    Interleaved,
    Kronecker,
    Permutation,
    Repeated,
    Scaled,
    Selection,
    Sparse,
    Stack,
    StructuredMatrix,
    Sum,
    Toeplitz,
)


@singledispatch
def transpose(matrix: StructuredMatrix) -> StructuredMatrix:
    """W^T as a structure of its own leaves, which hold what those of W held when it was called.

    No gradient of the transpose reaches W; `structures.apply_transposed` is for that.

    Raises:
        Refused: its type has no rule.
    """
    raise no_rule(matrix, "transpose")


def _held(leaf: Tensor) -> Tensor:
    return leaf.detach().clone(memory_format=torch.contiguous_format)


@transpose.register(Identity)
@transpose.register(Hadamard)
def _(matrix: Identity | Hadamard) -> StructuredMatrix:
    return type(matrix)(matrix.shape[0])


@transpose.register
def _(matrix: Diagonal) -> StructuredMatrix:
    return Diagonal(_held(matrix.weight))


@transpose.register
def _(matrix: Dense) -> StructuredMatrix:
    return Dense(_held(matrix.weight.T))


@transpose.register
def _(matrix: Sparse) -> StructuredMatrix:
    out, columns = matrix.shape
    row = torch.arange(out, device=matrix.device).repeat_interleave(matrix.offsets.long().diff())
    order = torch.argsort(matrix.columns.long(), stable=True)
    count = torch.bincount(matrix.columns.long(), minlength=columns)
    offsets = torch.nn.functional.pad(count.cumsum(0), (1, 0))
    return Sparse(_held(matrix.values[order]), row[order], offsets, size=out)


@transpose.register
def _(matrix: BlockDiagonal) -> StructuredMatrix:
    return BlockDiagonal(_held(matrix.weight.mT))


@transpose.register
def _(matrix: Kronecker) -> StructuredMatrix:
    return Kronecker(_held(matrix.left.mT), _held(matrix.right.mT))


@transpose.register
def _(matrix: Permutation) -> StructuredMatrix:
    return Permutation(torch.argsort(matrix.index))


@transpose.register
def _(matrix: Selection) -> StructuredMatrix:
    if not matrix.adjoint and bool((matrix.index.sort().values.diff() == 0).any()):
        raise Refused("transpose of a Selection that picks an entry twice is no Selection: take Dense(A.to_dense())")
    return Selection(matrix.index.clone(), size=max(matrix.shape), adjoint=not matrix.adjoint)


@transpose.register
def _(matrix: Cosine) -> StructuredMatrix:
    return Cosine(matrix.shape[0], adjoint=not matrix.adjoint)


@transpose.register
def _(matrix: Householder) -> StructuredMatrix:
    return Householder(_held(matrix.vectors.flip(0)))


@transpose.register
def _(matrix: Circulant) -> StructuredMatrix:
    return Circulant(_held(matrix.column.flip(0).roll(1)))


@transpose.register
def _(matrix: Toeplitz) -> StructuredMatrix:
    return Toeplitz(_held(matrix.values.flip(0)), columns=matrix.shape[0])


@transpose.register
def _(matrix: Scaled) -> StructuredMatrix:
    return Scaled(transpose(matrix.matrix), scale=matrix.scale)


@transpose.register(Repeated)
@transpose.register(Interleaved)
def _(matrix: Repeated | Interleaved) -> StructuredMatrix:
    return type(matrix)(transpose(matrix.matrix), copies=matrix.copies)


@transpose.register
def _(matrix: Chain) -> StructuredMatrix:
    return Chain(*(transpose(part) for part in reversed(matrix.operands())))


@transpose.register
def _(matrix: Sum) -> StructuredMatrix:
    return Sum(*(transpose(part) for part in matrix.operands()))


@transpose.register
def _(matrix: Stack) -> StructuredMatrix:
    parts, start = [], 0
    for part in matrix.operands():
        index = torch.arange(start, start + part.shape[0], device=matrix.device)
        parts.append(Chain(transpose(part), Selection(index, size=matrix.shape[0])))
        start += part.shape[0]
    return Sum(*parts)
