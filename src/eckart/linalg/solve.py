"""Systems of linear equations with a structure, solved in the structure's own terms."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._factors import factored, reciprocal, singular
from eckart.linalg._operators import (
    Columns,
    adjoint_product,
    as_came,
    columns_of,
    finite_shift,
    in_float64,
    no_rule,
    once,
    product,
    square,
)
from eckart.linalg._thin import Thin, split
from eckart.linalg.eigh import Eigen, eigen, without_identity
from eckart.linalg.toeplitz import toeplitz_inverse
from eckart.linalg.transpose import transpose
from eckart.linalg.two_sided import two_sided
from eckart.structures import (
    BlockDiagonal,
    Chain,
    Circulant,
    Cosine,
    Dense,
    Diagonal,
    Hadamard,
    Householder,
    Interleaved,
    Kronecker,
    Permutation,
    Repeated,
    Scaled,
    StructuredMatrix,
    Sum,
    Toeplitz,
)

RESIDUAL = 1e-6
"""Of |b|: what is left of b at most where a solution is given back. One solution of a matrix of condition 1e10 that was
computed without a fault may leave that."""


def solve(A: StructuredMatrix, b: Any, *, shift: float = 0.0) -> Any:
    """x = (A + shift I)^-1 b, without writing A out.

    Two small eigendecompositions for Kronecker products and sums, or Schur's triangular forms where a side is not
    symmetric (Sylvester's equation A X + X B^T = C is `kronecker_sum(A, B)` and the rows of C one after the other),
    Fourier transforms for circulants, Levinson's recursion for Toeplitz matrices and conjugate gradients for long ones,
    the formula of Sherman, Morrison and Woodbury for a sum of thin products and one of the others, block by block and
    factor by factor else. One step of iterative refinement follows. Gradients reach b and the leaves of A, by implicit
    differentiation: dx = M^-1 (db - dM x); gradients of gradients are refused.

    Args:
        A: (n, n).
        b: (n,) or (n, k), vectors as columns, a tensor or an array.
        shift: added to the diagonal.

    Returns:
        As b came; computed in float64.

    Raises:
        Refused: it has no rule, is singular or nearly so (more than 1e-6 of b is left), holds NaN or Inf, or the
            solution is larger than the dtype of b holds.
    """
    n = square(A, "solve")
    finite_shift(shift)
    rhs = columns_of(b, n, A.device)
    with torch.no_grad():
        apply = inverse(A, shift)
        x = apply(rhs.detach())
    # In this order b is not lost beside products that cancel.
    rest = rhs - (product(A, x) + shift * x)
    x = x + _Inverse.apply(rest, A, shift, apply)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        left = (rhs - (product(A, x) + shift * x)).norm(dim=0)
        share = float((left / rhs.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)).max()) if rhs.numel() else 0.0
    if not math.isfinite(share):
        raise Refused(
            f"the solution with {type(A).__name__} of shape {A.shape} and shift={shift:g} is not finite: the matrix is "
            "singular, or it overflows float64. Take a larger shift, or scale b down"
        )
    if not share <= RESIDUAL:
        raise Refused(
            f"{type(A).__name__} of shape {A.shape} with shift={shift:g} is singular to working precision: a share "
            f"{share:.2g} of b is left. Take a larger shift, or the shortest solution with linalg.krylov.lsqr"
        )
    found = as_came(x, b)
    if not torch.as_tensor(found).isfinite().all():
        raise Refused(f"the solution has entries of {float(x.detach().abs().max()):.2g}, more than {found.dtype} holds")
    return found


class _Inverse(torch.autograd.Function):
    """(A + shift I)^-1 r, whose gradient is the inverse of the transpose applied."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, matrix: StructuredMatrix, shift: float, apply: Columns) -> Tensor:
        ctx.matrix, ctx.shift = matrix, shift
        return apply(r)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        once("solve")
        with torch.no_grad():
            return inverse(transpose(ctx.matrix), ctx.shift)(g), None, None, None


def _of_eigen(found: Eigen, matrix: StructuredMatrix, shift: float) -> Columns:
    scale = reciprocal(found.values + shift, matrix, shift)[:, None]
    return lambda x: found.apply(scale * found.adjoint(x))


@singledispatch
def inverse(matrix: StructuredMatrix, shift: float) -> Columns:
    """x -> (A + shift I)^-1 x for columns in float64, what costs being done already; the rules are registered here."""
    return _of_eigen(eigen(matrix, "solve"), matrix, shift)


@inverse.register
def _(matrix: Dense, shift: float) -> Columns:
    return factored(matrix.weight, matrix, shift)


@inverse.register
def _(matrix: Diagonal, shift: float) -> Columns:
    values = matrix.weight.double() + shift
    if (values == 0).any():
        raise singular(matrix, shift, 0.0)
    return lambda x: x / values[:, None]


@inverse.register
def _(matrix: BlockDiagonal, shift: float) -> Columns:
    apply, blocks = factored(matrix.weight, matrix, shift), len(matrix.weight)
    return lambda x: apply(x.reshape(blocks, -1, x.shape[1])).reshape(x.shape)


@inverse.register(Permutation)
@inverse.register(Hadamard)
@inverse.register(Cosine)
@inverse.register(Householder)
def _(matrix: StructuredMatrix, shift: float) -> Columns:
    if shift:
        raise no_rule(matrix, "solve", "an orthogonal matrix with a shift")
    return lambda x: adjoint_product(matrix, x)


@inverse.register
def _(matrix: Circulant, shift: float) -> Columns:
    spectrum = _reciprocal_of_spectrum(matrix, shift)
    n = matrix.shape[0]
    return lambda x: torch.fft.irfft(torch.fft.rfft(x, dim=0) * spectrum[:, None], n, dim=0)


def _reciprocal_of_spectrum(matrix: Circulant, shift: float) -> Tensor:
    return reciprocal(torch.fft.rfft(matrix.column.double()) + shift, matrix, shift)


@inverse.register
def _(matrix: Toeplitz, shift: float) -> Columns:
    return toeplitz_inverse(matrix, shift)


@inverse.register
def _(matrix: Kronecker, shift: float) -> Columns:
    (a, b), (c, d) = matrix.left.shape[-2:], matrix.right.shape[-2:]
    if shift or matrix.left.ndim == 3 or a != b or c != d:
        return two_sided([matrix], matrix, shift) or _of_eigen(eigen(matrix, "solve"), matrix, shift)
    left, right = factored(matrix.left, matrix, 0.0), factored(matrix.right, matrix, 0.0)

    def apply(x: Tensor) -> Tensor:
        k = x.shape[1]
        y = left(x.reshape(a, c * k)).reshape(a, c, k).transpose(0, 1)
        return right(y.reshape(c, a * k)).reshape(c, a, k).transpose(0, 1).reshape(a * c, k)

    return apply


@inverse.register
def _(matrix: Scaled, shift: float) -> Columns:
    if matrix.scale == 0:
        return inverse(Diagonal(torch.zeros(matrix.shape[0], dtype=torch.float64)), shift)
    apply, scale = inverse(matrix.matrix, shift / matrix.scale), matrix.scale
    return lambda x: apply(x) / scale


@inverse.register
def _(matrix: Repeated, shift: float) -> Columns:
    apply, copies = inverse(matrix.matrix, shift), matrix.copies
    n = matrix.matrix.shape[0]

    def each(x: Tensor) -> Tensor:
        y = apply(x.reshape(copies, n, -1).transpose(0, 1).reshape(n, -1))
        return y.reshape(n, copies, -1).transpose(0, 1).reshape(x.shape)

    return each


@inverse.register
def _(matrix: Interleaved, shift: float) -> Columns:
    apply, n = inverse(matrix.matrix, shift), matrix.matrix.shape[0]
    return lambda x: apply(x.reshape(n, -1)).reshape(x.shape)


@inverse.register
def _(matrix: Chain, shift: float) -> Columns:
    parts = matrix.operands()
    if shift == 0 and all(part.shape[0] == part.shape[1] for part in parts):
        factors = [inverse(part, 0.0) for part in parts]

        def apply(x: Tensor) -> Tensor:
            for factor in factors:
                x = factor(x)
            return x

        return apply
    thin = split(matrix)
    if thin is None:
        return _of_eigen(eigen(matrix, "solve"), matrix, shift)
    if shift == 0:
        raise singular(matrix, 0.0, 0.0)
    return woodbury(lambda x: x / shift, thin, matrix, shift)


@inverse.register
def _(matrix: Sum, shift: float) -> Columns:
    parts, more = without_identity(matrix)
    shift += more
    thin = [found for found in map(split, parts) if found is not None]
    base = [part for part in parts if split(part) is None]
    if all(isinstance(part, Dense | Diagonal) for part in base) and any(isinstance(part, Dense) for part in base):
        return factored(
            in_float64(matrix) - more * torch.eye(matrix.shape[0], dtype=torch.float64, device=matrix.device),
            matrix,
            shift,
        )
    if all(isinstance(part, Diagonal | Circulant | Toeplitz) for part in base) and len(base) > 1:
        base = _merged(base)
    crossed = two_sided(base, matrix, shift)
    if crossed is not None and not thin:
        return crossed
    if not thin and len(base) != 1:
        return _of_eigen(eigen(Sum(*parts) if parts else matrix, "solve"), matrix, shift if parts else shift - more)
    if not base:
        if shift == 0:
            raise singular(matrix, 0.0, 0.0)
        return woodbury(lambda x: x / shift, Thin.beside(thin), matrix, shift)
    inner = inverse(base[0] if len(base) == 1 else Sum(*base), shift)
    return woodbury(inner, Thin.beside(thin), matrix, shift) if thin else inner


def _merged(parts: list[StructuredMatrix]) -> list[StructuredMatrix]:
    """Sums of diagonals, of circulants and of Toeplitz matrices as one of each."""
    found: list[StructuredMatrix] = []
    for kind, name in ((Diagonal, "weight"), (Circulant, "column"), (Toeplitz, "values")):
        same = [getattr(part, name).double() for part in parts if isinstance(part, kind)]
        if same:
            options = {"columns": parts[0].shape[1]} if kind is Toeplitz else {}
            found.append(kind(torch.stack(same).sum(0), **options))
    return found


def woodbury(base: Columns, thin: Thin, matrix: StructuredMatrix, shift: float) -> Columns:
    """(B + L R)^-1 x = y - B^-1 L (I + R B^-1 L)^-1 R y with y = B^-1 x."""
    from_left = base(thin.left)
    rank = thin.left.shape[1]
    core = torch.eye(rank, dtype=torch.float64, device=from_left.device) + thin.right @ from_left
    small = factored(core, matrix, 0.0)

    def apply(x: Tensor) -> Tensor:
        y = base(x)
        return y - from_left @ small(thin.right @ y)

    return apply
