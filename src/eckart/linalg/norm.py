"""Norms and singular values of structures, in the structure's own terms."""

from __future__ import annotations

from functools import singledispatch
from typing import Literal

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._operators import finite, no_rule
from eckart.linalg._thin import split
from eckart.linalg.eigh import eigen
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


def _length(x: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(x)
    return found


def _svdvals(weight: Tensor) -> Tensor:
    found: Tensor = torch.linalg.svdvals(weight)
    return found


Order = Literal["fro", "nuc", 2]


def norm(A: StructuredMatrix, order: Order = "fro") -> Tensor:
    """A norm of a structure: Frobenius, nuclear or spectral.

    Args:
        A: (out, in).
        order: "fro" is the root of the sum of squares, "nuc" the sum of the singular values, 2 the largest.

    Returns:
        float64, no dimensions; gradients reach the leaves of A.

    Raises:
        Refused: its singular values, or for "fro" the sum of its squares, have no rule; NaN or Inf entries.
    """
    if order not in ("fro", "nuc", 2):
        raise Refused(f"order={order!r} is no norm that is known here: 'fro', 'nuc' or 2")
    A.check_linear()
    finite(A)
    if order == "fro":
        return frobenius(A)
    values = singular_values(A, "norm")
    return values.sum() if order == "nuc" else values.max()


def svdvals(A: StructuredMatrix) -> Tensor:
    """The singular values of a structure, descending, (min(out, in),), float64.

    Raises:
        Refused: its type has no rule, or it holds NaN or Inf.
    """
    A.check_linear()
    finite(A)
    found = singular_values(A, "svdvals")
    found = torch.nn.functional.pad(found, (0, max(0, min(A.shape) - len(found))))
    return found.sort(descending=True).values[: min(A.shape)]


@singledispatch
def singular_values(matrix: StructuredMatrix, doing: str) -> Tensor:
    """The singular values that are not zero, in any order, zeros perhaps among them; the rules are registered here."""
    return eigen(matrix, doing).values.abs() if matrix.shape[0] == matrix.shape[1] else _none(matrix, doing)


def _none(matrix: StructuredMatrix, doing: str) -> Tensor:
    raise no_rule(matrix, doing)


ORTHOGONAL = Identity, Permutation, Cosine, Hadamard, Householder


def _ones(matrix: StructuredMatrix, doing: str) -> Tensor:
    return torch.ones(matrix.shape[0], dtype=torch.float64, device=matrix.device)


for _kind in ORTHOGONAL:
    singular_values.register(_kind)(_ones)


@singular_values.register(Dense)
@singular_values.register(BlockDiagonal)
def _(matrix: Dense | BlockDiagonal, doing: str) -> Tensor:
    return _svdvals(matrix.weight.double()).flatten()


@singular_values.register
def _(matrix: Diagonal, doing: str) -> Tensor:
    return matrix.weight.double().abs()


@singular_values.register
def _(matrix: Kronecker, doing: str) -> Tensor:
    if matrix.left.ndim == 3:
        return eigen(matrix, doing).values.abs()
    left, right = (_svdvals(side.double()) for side in (matrix.left, matrix.right))
    return torch.outer(left, right).flatten()


@singular_values.register
def _(matrix: Circulant, doing: str) -> Tensor:
    found: Tensor = torch.fft.fft(matrix.column.double()).abs()
    return found


@singular_values.register
def _(matrix: Selection, doing: str) -> Tensor:
    return torch.bincount(matrix.index.long()).double().sqrt()


@singular_values.register
def _(matrix: Scaled, doing: str) -> Tensor:
    return abs(matrix.scale) * singular_values(matrix.matrix, doing)


@singular_values.register(Repeated)
@singular_values.register(Interleaved)
def _(matrix: Repeated | Interleaved, doing: str) -> Tensor:
    return singular_values(matrix.matrix, doing).repeat(matrix.copies)


@singular_values.register
def _(matrix: Chain, doing: str) -> Tensor:
    parts = matrix.operands()
    while len(parts) > 1 and isinstance(parts[0], ORTHOGONAL):
        parts = parts[1:]
    while len(parts) > 1 and isinstance(parts[-1], ORTHOGONAL):
        parts = parts[:-1]
    if len(parts) == 1:
        return singular_values(parts[0], doing)
    thin = split(Chain(*parts))
    if thin is None:
        raise no_rule(matrix, doing)
    left, right = torch.linalg.qr(thin.left).R, torch.linalg.qr(thin.right.T).R
    return _svdvals(left @ right.T)


@singledispatch
def frobenius(matrix: StructuredMatrix) -> Tensor:
    """The root of the sum of squares; the rules are registered here."""
    return _length(singular_values(matrix, "norm"))


@frobenius.register(Dense)
@frobenius.register(BlockDiagonal)
def _(matrix: Dense | BlockDiagonal) -> Tensor:
    return _length(matrix.weight.double())


@frobenius.register
def _(matrix: Sparse) -> Tensor:
    return _length(matrix.values.double())


@frobenius.register
def _(matrix: Toeplitz) -> Tensor:
    out, columns = matrix.shape
    place = torch.arange(out + columns - 1, device=matrix.device)
    length = torch.minimum(torch.minimum(place + 1, place.flip(0) + 1), torch.tensor(min(out, columns)).to(place))
    return (length * matrix.values.double().square()).sum().sqrt()


@frobenius.register
def _(matrix: Stack) -> Tensor:
    return torch.stack([frobenius(part) for part in matrix.operands()]).square().sum().sqrt()


@frobenius.register
def _(matrix: Sum) -> Tensor:
    terms = [split(part) for part in matrix.operands()]
    if any(term is None for term in terms):
        return _length(eigen(matrix, "norm").values)
    # |sum of L_i R_i|^2 is a sum over pairs of tr(R_j R_i^T L_i^T L_j): the products beside each other as one.
    left = torch.cat([term.left for term in terms if term is not None], 1)
    right = torch.cat([term.right for term in terms if term is not None])
    return _length(torch.linalg.qr(left).R @ torch.linalg.qr(right.T).R.T)
