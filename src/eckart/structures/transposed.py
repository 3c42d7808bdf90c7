"""The transpose of a structure, applied."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from eckart.structures.base import StructuredMatrix
from eckart.structures.block_diagonal import BlockDiagonal, apply_blocks
from eckart.structures.diagonal import Diagonal, Identity
from eckart.structures.interpolative import Interpolative
from eckart.structures.kronecker import Kronecker, apply_kronecker
from eckart.structures.permutation import Permutation, Selection, gather, scatter
from eckart.structures.transforms import Cosine, Hadamard, cosine


@singledispatch
def apply_transposed(matrix: StructuredMatrix, x: Tensor) -> Tensor:
    """`x @ W`, the transpose of W applied to each vector of x: (..., out) -> (..., in).

    W is formed unless its type has a rule of its own.
    """
    return x @ matrix.to_dense().to(x.dtype)


@apply_transposed.register
def _(matrix: Identity, x: Tensor) -> Tensor:
    return x


@apply_transposed.register
def _(matrix: Diagonal, x: Tensor) -> Tensor:
    return x * matrix.weight


@apply_transposed.register
def _(matrix: Permutation, x: Tensor) -> Tensor:
    return scatter(x, matrix.index, matrix.shape[1])


@apply_transposed.register
def _(matrix: Selection, x: Tensor) -> Tensor:
    return gather(x, matrix.index) if matrix.adjoint else scatter(x, matrix.index, matrix.shape[1])


@apply_transposed.register
def _(matrix: Cosine, x: Tensor) -> Tensor:
    return cosine(x, adjoint=not matrix.adjoint)


@apply_transposed.register
def _(matrix: Hadamard, x: Tensor) -> Tensor:
    transformed: Tensor = matrix(x)
    return transformed


@apply_transposed.register
def _(matrix: Kronecker, x: Tensor) -> Tensor:
    return apply_kronecker(matrix.left.mT, matrix.right.mT, x)


@apply_transposed.register
def _(matrix: BlockDiagonal, x: Tensor) -> Tensor:
    return apply_blocks(matrix.weight.mT, x)


@apply_transposed.register
def _(matrix: Interpolative, x: Tensor) -> Tensor:
    rank = matrix.basis.shape[0]
    y = scatter(x, matrix.index, matrix.shape[0])
    return (y[..., :rank] + y[..., rank:] @ matrix.rest) @ matrix.basis
