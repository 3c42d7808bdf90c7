"""Eigenvalues and eigenvectors of symmetric structures, in the structure's own terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from eckart.linalg._operators import (
    Columns,
    adjoint_product,
    asymmetric,
    in_float64,
    is_symmetric,
    no_rule,
    product,
    square,
)
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
    StructuredMatrix,
    Sum,
)


@dataclass(frozen=True)
class Eigen:
    """A = V diag(values) V^T, V orthogonal and applied without writing it out.

    Attributes:
        values: (n,), float64, in the order of the columns of V, which is that of the structure and not ascending.
        apply: (n, k) -> V x.
        adjoint: (n, k) -> V^T x.
    """

    values: Tensor
    apply: Columns
    adjoint: Columns

    def vectors(self) -> Tensor:
        """V (n, n), written out."""
        return self.apply(torch.eye(len(self.values), dtype=torch.float64, device=self.values.device))

    def function(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """f(A) x = V diag(f(values)) V^T x for x (n, k) in float64."""
        return self.apply(f(self.values)[:, None] * self.adjoint(x))


def eigh(A: StructuredMatrix) -> Eigen:
    """The eigenvalues of a symmetric structure and its eigenvectors: two small problems for a Kronecker product.

    Rules are there for Dense, Identity, Diagonal, BlockDiagonal, Kronecker, Circulant, Repeated, Interleaved, Scaled,
    as a `Chain` for A kron I times I kron B and for Q D Q^T with Q one of Hadamard, Cosine, Householder or Permutation,
    and as a `Sum` for Kronecker sums, sums of circulants, and anything plus multiples of the identity. Gradients go
    through the values.

    Args:
        A: (n, n), symmetric up to rounding.

    Raises:
        Refused: it is not square or not symmetric, holds NaN or Inf, or has no rule.
    """
    square(A, "eigh")
    return eigen(A, "eigh")


@singledispatch
def eigen(matrix: StructuredMatrix, doing: str) -> Eigen:
    """`eigh` on behalf of the function `doing`, which its refusals name; the rules are registered here."""
    raise no_rule(matrix, doing)


def _asked(weight: Tensor, matrix: StructuredMatrix, doing: str) -> Tensor:
    if not is_symmetric(weight):
        raise asymmetric(matrix, doing)
    return weight.double()


def _of_dense(weight: Tensor) -> Eigen:
    values, vectors = torch.linalg.eigh(weight)
    return Eigen(values, lambda x: vectors @ x, lambda x: vectors.T @ x)


@eigen.register
def _(matrix: Dense, doing: str) -> Eigen:
    return _of_dense(_asked(matrix.weight, matrix, doing))


@eigen.register
def _(matrix: Identity, doing: str) -> Eigen:
    return Eigen(torch.ones(matrix.shape[0], dtype=torch.float64), lambda x: x, lambda x: x)


@eigen.register
def _(matrix: Diagonal, doing: str) -> Eigen:
    return Eigen(matrix.weight.double(), lambda x: x, lambda x: x)


@eigen.register
def _(matrix: BlockDiagonal, doing: str) -> Eigen:
    values, vectors = torch.linalg.eigh(_asked(matrix.weight, matrix, doing))
    b, n = values.shape

    def apply(v: Tensor) -> Columns:
        return lambda x: (v @ x.reshape(b, n, -1)).reshape(b * n, -1)

    return Eigen(values.flatten(), apply(vectors), apply(vectors.mT))


def _both(left: Columns, right: Columns, a: int, b: int) -> Columns:
    """(left kron right) x, of square matrices of sizes a and b."""

    def apply(x: Tensor) -> Tensor:
        k = x.shape[1]
        y = left(x.reshape(a, b * k)).reshape(a, b, k).transpose(0, 1)
        return right(y.reshape(b, a * k)).reshape(b, a, k).transpose(0, 1).reshape(a * b, k)

    return apply


def _crossed(left: Eigen, right: Eigen, values: Tensor) -> Eigen:
    a, b = len(left.values), len(right.values)
    return Eigen(values.flatten(), _both(left.apply, right.apply, a, b), _both(left.adjoint, right.adjoint, a, b))


@eigen.register
def _(matrix: Kronecker, doing: str) -> Eigen:
    if matrix.left.ndim == 3:
        raise no_rule(matrix, doing, "it is a sum of products")
    left = _of_dense(_asked(matrix.left, matrix, doing))
    right = _of_dense(_asked(matrix.right, matrix, doing))
    return _crossed(left, right, torch.outer(left.values, right.values))


@eigen.register(Repeated)
@eigen.register(Interleaved)
def _(matrix: Repeated | Interleaved, doing: str) -> Eigen:
    inner = eigen(matrix.matrix, doing)
    ones = torch.ones(matrix.copies, dtype=torch.float64, device=inner.values.device)
    same = Eigen(ones, lambda x: x, lambda x: x)
    left, right = (inner, same) if isinstance(matrix, Interleaved) else (same, inner)
    return _crossed(left, right, torch.outer(left.values, right.values))


@eigen.register
def _(matrix: Scaled, doing: str) -> Eigen:
    inner = eigen(matrix.matrix, doing)
    return Eigen(matrix.scale * inner.values, inner.apply, inner.adjoint)


@eigen.register
def _(matrix: Circulant, doing: str) -> Eigen:
    return _circulant(matrix.column, matrix, doing)


def _circulant(column: Tensor, matrix: StructuredMatrix, doing: str) -> Eigen:
    # Rounding a symmetric column to 16 bits leaves it symmetric.
    eps = min(torch.finfo(column.dtype).eps, torch.finfo(torch.float32).eps)
    slack = 8 * eps * float(column.detach().abs().max())
    if (column - column.flip(0).roll(1)).abs().max() > slack:
        raise asymmetric(matrix, doing)
    # Frequencies k and n - k share an eigenvalue, so that cosines plus sines are eigenvectors (Hartley's basis).
    values = torch.fft.fft(column.double()).real

    def hartley(x: Tensor) -> Tensor:
        spectrum = torch.fft.fft(x, dim=0, norm="ortho")
        rotated: Tensor = spectrum.real - spectrum.imag
        return rotated

    return Eigen(values, hartley, hartley)


@eigen.register
def _(matrix: Chain, doing: str) -> Eigen:
    parts = matrix.operands()
    if len(parts) == 1:
        return eigen(parts[0], doing)
    first, *middle, last = parts
    sides = {type(part): part for part in parts}
    if len(parts) == 2 and sides.keys() == {Interleaved, Repeated}:
        found = _sides(sides[Interleaved], sides[Repeated], doing)
        if found is not None:
            return _crossed(*found, torch.outer(found[0].values, found[1].values))
    if not middle or not transposed_pair(first, last):
        raise no_rule(matrix, doing, "it is not Q D Q^T with Q of a kind that is orthogonal")
    inner = eigen(middle[0] if len(middle) == 1 else Chain(*middle), doing)
    return Eigen(
        inner.values,
        lambda x: product(first, inner.apply(x)),
        lambda x: inner.adjoint(adjoint_product(first, x)),
    )


def transposed_pair(first: StructuredMatrix, last: StructuredMatrix) -> bool:
    """Whether both are orthogonal by their kind, and the last is the transpose of the first."""
    if first.shape != last.shape or type(first) is not type(last):
        return False
    if isinstance(first, Hadamard):
        return True
    if isinstance(first, Cosine) and isinstance(last, Cosine):
        return first.adjoint != last.adjoint
    if isinstance(first, Permutation) and isinstance(last, Permutation):
        return bool((last.index[first.index.long()] == torch.arange(first.shape[0], device=first.device)).all())
    reflections = isinstance(first, Householder) and isinstance(last, Householder)
    return reflections and torch.equal(first.vectors, last.vectors.flip(0))  # type: ignore[operator, arg-type]


def without_identity(matrix: Sum) -> tuple[list[StructuredMatrix], float]:
    """The summands but for multiples of the identity, and the sum of these multiples."""
    kept, shift = [], 0.0
    for part in matrix.operands():
        factor, inner = 1.0, part
        while isinstance(inner, Scaled):
            factor, inner = factor * inner.scale, inner.matrix
        if isinstance(inner, Identity):
            shift += factor
        else:
            kept.append(part)
    return kept, shift


def _sides(left: Any, right: Any, doing: str) -> tuple[Eigen, Eigen] | None:
    """Of A kron I and I kron B both, where they act on two sides of one table."""
    if left.matrix.shape[0] != right.copies:
        return None
    return eigen(left.matrix, doing), eigen(right.matrix, doing)


@eigen.register
def _(matrix: Sum, doing: str) -> Eigen:
    parts, shift = without_identity(matrix)
    if not parts:
        return eigen(Scaled(Identity(matrix.shape[0]), scale=shift), doing)
    found = _summed(parts, matrix, doing)
    return Eigen(found.values + shift, found.apply, found.adjoint)


def _summed(parts: list[StructuredMatrix], matrix: Sum, doing: str) -> Eigen:
    if len(parts) == 1:
        return eigen(parts[0], doing)
    if all(isinstance(part, Circulant) for part in parts):
        columns = [part.column.double() for part in parts if isinstance(part, Circulant)]
        return _circulant(torch.stack(columns).sum(0), matrix, doing)
    if all(isinstance(part, Dense | Diagonal) for part in parts):
        return _of_dense(_asked(in_float64(Sum(*parts)), matrix, doing))
    sides = {type(part): part for part in parts}
    if len(parts) == 2 and sides.keys() == {Interleaved, Repeated}:
        found = _sides(sides[Interleaved], sides[Repeated], doing)
        if found is not None:
            return _crossed(*found, found[0].values[:, None] + found[1].values)
    raise no_rule(matrix, doing, "its parts share no eigenvectors that are known")
