"""Determinants of structures, as a sign and a logarithm, in the structure's own terms."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from eckart import arrays
from eckart.errors import Refused
from eckart.linalg._operators import finite_shift, in_float64, no_rule, once, square
from eckart.linalg._thin import Thin, split
from eckart.linalg.eigh import Eigen, eigen, transposed_pair, without_identity
from eckart.linalg.solve import solve
from eckart.linalg.two_sided import two_sided
from eckart.structures import (
    BlockDiagonal,
    Chain,
    Circulant,
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


class SignLogdet(NamedTuple):
    """A determinant: sign times exp(logabsdet).

    Attributes:
        sign: -1, 0 or 1, float64, no dimensions.
        logabsdet: its absolute value's logarithm; -inf where it is zero.
    """

    sign: Tensor
    logabsdet: Tensor


def slogdet(A: StructuredMatrix, *, shift: float = 0.0) -> SignLogdet:
    """Sign and logarithm of det(A + shift I); gradients of the logarithm reach the leaves of A.

    Args:
        A: (n, n).
        shift: added to the diagonal.

    Raises:
        Refused: it is not square, holds NaN or Inf, or has no rule.
    """
    square(A, "slogdet")
    finite_shift(shift)
    return determinant(A, shift)


def logdet(A: StructuredMatrix, *, shift: float = 0.0) -> Tensor:
    """ln det(A + shift I), float64; see `slogdet`.

    Raises:
        Refused: the determinant is not positive, and as `slogdet`.
    """
    found = slogdet(A, shift=shift)
    if not found.sign > 0:
        raise Refused(
            f"{type(A).__name__} of shape {A.shape} with shift={shift:g} has a determinant of sign "
            f"{int(found.sign)}, and no logarithm: take slogdet"
        )
    return found.logabsdet


def _of(values: Tensor) -> SignLogdet:
    """The product of real numbers."""
    return SignLogdet(values.detach().sign().prod(), values.abs().log().sum())


def _of_eigen(found: Eigen, shift: float) -> SignLogdet:
    return _of(found.values + shift)


def _dense(weight: Tensor, shift: float) -> SignLogdet:
    eye = torch.eye(weight.shape[-1], dtype=torch.float64, device=weight.device)
    sign, log = torch.linalg.slogdet(weight.double() + shift * eye)
    return SignLogdet(sign.detach().prod(), log.sum())


@singledispatch
def determinant(matrix: StructuredMatrix, shift: float) -> SignLogdet:
    """`slogdet` without its checks; the rules are registered here."""
    return _of_eigen(eigen(matrix, "slogdet"), shift)


@determinant.register(Dense)
@determinant.register(BlockDiagonal)
def _(matrix: Dense | BlockDiagonal, shift: float) -> SignLogdet:
    if matrix.weight.shape[-1] != matrix.weight.shape[-2]:
        raise no_rule(matrix, "slogdet", "its blocks are not square")
    return _dense(matrix.weight, shift)


@determinant.register
def _(matrix: Permutation, shift: float) -> SignLogdet:
    # A cycle of length l is a circulant of determinant shift^l - (-1)^l.
    n = matrix.shape[0]
    index = matrix.index.cpu().numpy()
    graph = sparse.coo_array(([1] * n, (range(n), index)), shape=(n, n))
    lengths = torch.bincount(torch.from_numpy(connected_components(graph, directed=False)[1]).long())
    return _of(torch.tensor([shift**l - (-1) ** l for l in lengths.tolist()], dtype=torch.float64))


@determinant.register
def _(matrix: Householder, shift: float) -> SignLogdet:
    if shift:
        raise no_rule(matrix, "slogdet", "an orthogonal matrix with a shift")
    nonzero = int(matrix.vectors.detach().any(1).sum())
    return _of(torch.tensor([(-1.0) ** nonzero], dtype=torch.float64))


@determinant.register
def _(matrix: Hadamard, shift: float) -> SignLogdet:
    # Symmetric, its own inverse, of trace zero: as many eigenvalues 1 as -1.
    signs = torch.ones(matrix.shape[0], dtype=torch.float64)
    signs[1::2] = -1
    return _of(signs + shift)


@determinant.register
def _(matrix: Circulant, shift: float) -> SignLogdet:
    spectrum = torch.fft.fft(matrix.column.double()) + shift
    real = [0] if matrix.shape[0] % 2 else [0, matrix.shape[0] // 2]
    return SignLogdet(spectrum[real].real.detach().sign().prod(), spectrum.abs().log().sum())


@determinant.register
def _(matrix: Toeplitz, shift: float) -> SignLogdet:
    n, values = matrix.shape[0], matrix.values.double()
    if not torch.equal(values, values.flip(0)):
        raise no_rule(matrix, "slogdet", "it is not symmetric")
    # From both halves, so that the gradient of each is its own.
    r = (values[n - 1 :] + values[:n].flip(0)) / 2 + shift * torch.nn.functional.one_hot(torch.tensor(0), n).to(values)
    sign, log = _Durbin.apply(r, matrix)  # type: ignore[no-untyped-call]
    return SignLogdet(sign, log)


class _Durbin(torch.autograd.Function):
    """Durbin's recursion: det of the leading block k + 1 over that of k is the error of a prediction.

    The gradient, sums over the diagonals of the inverse, is by the formula of Gohberg and Semencul: with x its first
    column the inverse is (L L^T - M M^T) / x_0 for the lower triangular Toeplitz matrices of x and (0, x_n, ..., x_2).
    """

    @staticmethod
    def forward(ctx: Any, column: Tensor, matrix: Toeplitz) -> tuple[Tensor, Tensor]:
        r = column.detach().cpu().numpy()
        a, errors = np.zeros(0), np.empty(len(r))
        errors[0] = error = r[0]
        for k in range(1, len(r)):
            if error == 0:
                raise no_rule(matrix, "slogdet", "a leading block of it is singular, which ends Durbin's recursion")
            alpha = -(r[k] + a @ r[k - 1 : 0 : -1]) / error
            a = np.append(a + alpha * a[::-1], alpha)
            errors[k] = error = error * (1 - alpha**2)
        ctx.inverse = np.append(1.0, a) / error if error else None
        ctx.matrix = matrix
        sign, log = _of(torch.from_numpy(errors))
        ctx.mark_non_differentiable(sign)
        return sign.to(column.device), log.to(column.device)

    @staticmethod
    def backward(ctx: Any, _: Tensor, g: Tensor) -> tuple[Tensor, None]:
        once("slogdet")
        x = ctx.inverse
        if x is None:
            raise no_rule(ctx.matrix, "the gradient of slogdet", "it is singular")
        sums = (_sums_over_diagonals(x) - _sums_over_diagonals(np.append(0.0, x[:0:-1]))) / x[0]
        sums[1:] *= 2
        return g * torch.from_numpy(sums).to(g.device), None


def _sums_over_diagonals(x: arrays.Dense) -> arrays.Dense:
    """Of L L^T, L lower triangular Toeplitz of first column x: sum_m (n - k - m) x_m+k x_m for the k-th."""
    n = len(x)
    spectrum = np.fft.rfft(x, 2 * n)
    weighted = np.fft.rfft((n - np.arange(n)) * x, 2 * n)
    plain = np.fft.irfft(spectrum * spectrum.conj(), 2 * n)[:n]
    found: arrays.Dense = np.fft.irfft(spectrum * weighted.conj(), 2 * n)[:n] - np.arange(n) * plain
    return found


@determinant.register
def _(matrix: Kronecker, shift: float) -> SignLogdet:
    a, c = matrix.left.shape[-1], matrix.right.shape[-1]
    if shift or matrix.left.ndim == 3 or matrix.left.shape != (a, a) or matrix.right.shape != (c, c):
        crossed = two_sided([matrix], matrix, shift)
        if crossed is not None:
            return SignLogdet(*crossed.logabsdet())
        return _of_eigen(eigen(matrix, "slogdet"), shift)
    left, right = _dense(matrix.left, 0.0), _dense(matrix.right, 0.0)
    return SignLogdet(left.sign**c * right.sign**a, c * left.logabsdet + a * right.logabsdet)


@determinant.register(Repeated)
@determinant.register(Interleaved)
def _(matrix: Repeated | Interleaved, shift: float) -> SignLogdet:
    one = slogdet(matrix.matrix, shift=shift)
    return SignLogdet(one.sign**matrix.copies, matrix.copies * one.logabsdet)


@determinant.register
def _(matrix: Scaled, shift: float) -> SignLogdet:
    if matrix.scale == 0:
        return _of(torch.full((matrix.shape[0],), shift, dtype=torch.float64))
    inner = determinant(matrix.matrix, shift / matrix.scale)
    scales = _of(torch.full((matrix.shape[0],), matrix.scale, dtype=torch.float64))
    return SignLogdet(scales.sign * inner.sign, scales.logabsdet + inner.logabsdet)


@determinant.register
def _(matrix: Chain, shift: float) -> SignLogdet:
    parts = matrix.operands()
    if len(parts) > 2 and transposed_pair(parts[0], parts[-1]):
        return determinant(parts[1] if len(parts) == 3 else Chain(*parts[1:-1]), shift)
    if shift == 0 and all(part.shape[0] == part.shape[1] for part in parts):
        found = [determinant(part, 0.0) for part in parts]
        return SignLogdet(
            torch.stack([each.sign for each in found]).prod(), torch.stack([each.logabsdet for each in found]).sum()
        )
    thin = split(matrix)
    if thin is None:
        return _of_eigen(eigen(matrix, "slogdet"), shift)
    if shift == 0:
        return _of(torch.zeros(1, dtype=torch.float64))
    base = torch.full((matrix.shape[0],), shift, dtype=torch.float64, device=matrix.device)
    return _lemma(_of(base), thin, thin.left / shift)


@determinant.register
def _(matrix: Sum, shift: float) -> SignLogdet:
    parts, more = without_identity(matrix)
    thin = [found for found in map(split, parts) if found is not None]
    base = [part for part in parts if split(part) is None]
    if any(isinstance(part, Dense) for part in base) and all(isinstance(part, Dense | Diagonal) for part in base):
        return _dense(in_float64(matrix), shift)
    if all(isinstance(part, Diagonal) for part in base) and (thin or base):
        values = torch.full((matrix.shape[0],), shift + more, dtype=torch.float64, device=matrix.device)
        for part in (part for part in base if isinstance(part, Diagonal)):
            values = values + part.weight.double()
        if not thin:
            return _of(values)
        if (values == 0).any():
            raise Refused("slogdet of thin products needs a diagonal without zeros beside them: take a shift")
        both = Thin.beside(thin)
        return _lemma(_of(values), both, both.left / values[:, None])
    if thin and len(base) == 1:
        both = Thin.beside(thin)
        return _lemma(determinant(base[0], shift + more), both, solve(base[0], both.left, shift=shift + more))
    if not thin and len(base) == 1:
        return determinant(base[0], shift + more)
    crossed = two_sided(base, matrix, shift + more)
    if crossed is not None and not thin:
        return SignLogdet(*crossed.logabsdet())
    return _of_eigen(eigen(matrix, "slogdet"), shift)


def _lemma(base: SignLogdet, thin: Thin, solved: Tensor) -> SignLogdet:
    """det(B + L R) = det B det(I + R B^-1 L), B^-1 L being `solved`."""
    core = _dense(thin.right @ solved, 1.0)
    return SignLogdet(base.sign * core.sign, base.logabsdet + core.logabsdet)
