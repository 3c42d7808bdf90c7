"""Draws of a Gaussian vector whose covariance is a structure."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._operators import Columns, finite_shift, no_rule, square
from eckart.linalg._thin import Thin, split
from eckart.linalg.eigh import Eigen, eigen, without_identity
from eckart.structures import Chain, Dense, Diagonal, Scaled, StructuredMatrix, Sum, Toeplitz

CONTINUED = 4096
"""Rows of a Toeplitz matrix up to which it is written out where no circulant continues it."""
NEGATIVE = 1e-10
"""An eigenvalue below zero, by the largest, that no rounding of a positive semi-definite matrix explains."""


def sample(A: StructuredMatrix, count: int, *, shift: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    """Draws from N(0, A + shift I), without writing A out.

    Through the eigenvectors, or as a sum of independent draws: one of a diagonal and one for each product F F^T.
    A Toeplitz matrix is a corner of a larger circulant (Davies and Harte 1987).

    Args:
        A: (n, n), symmetric, A + shift I positive semi-definite.
        count: draws.
        shift: added to the diagonal.
        generator: of the normal numbers.

    Returns:
        (count, n), one a row, float64, without gradients.

    Raises:
        Refused: it is not square, not symmetric, not positive semi-definite, or has no rule.
    """
    n = square(A, "sample")
    finite_shift(shift)
    if count < 0:
        raise Refused(f"count={count} draws cannot be made")
    with torch.no_grad():
        factor, width = root(A, shift)
        at = generator.device if generator is not None else A.device
        z = torch.randn(count, width, generator=generator, dtype=torch.float64, device=at).to(A.device)
        return factor(z.T).T if count else z.new_zeros(0, n)


Root = tuple[Columns, int]
"""F and its number of columns, F F^T = A + shift I."""


def _roots(values: Tensor, matrix: StructuredMatrix, shift: float) -> Tensor:
    if values.min() < -NEGATIVE * values.abs().max():
        raise Refused(
            f"{type(matrix).__name__} with shift={shift:g} is no covariance: it has an eigenvalue "
            f"{float(values.min()):.3g}; take a larger shift"
        )
    return values.clamp_min(0).sqrt()


def _of_eigen(found: Eigen, matrix: StructuredMatrix, shift: float) -> Root:
    scale = _roots(found.values + shift, matrix, shift)[:, None]
    return (lambda z: found.apply(scale * z)), len(scale)


@singledispatch
def root(matrix: StructuredMatrix, shift: float) -> Root:
    """A factor F of A + shift I; the rules are registered here."""
    return _of_eigen(eigen(matrix, "sample"), matrix, shift)


def _beside(first: Root, second: Root) -> Root:
    """[F G], whose product with its transpose is F F^T + G G^T."""
    (f, m), (g, n) = first, second
    return (lambda z: f(z[:m]) + g(z[m:])), m + n


def _half(thin: Thin, matrix: StructuredMatrix) -> Root:
    left, right = thin.left, thin.right
    if not torch.allclose(left, right.T, rtol=1e-6, atol=1e-6 * float(left.abs().max())):
        raise no_rule(matrix, "sample", "a thin product is not F F^T")
    return (lambda z: left @ z), left.shape[1]


def _zero(matrix: StructuredMatrix) -> StructuredMatrix:
    return Diagonal(torch.zeros(matrix.shape[0], dtype=torch.float64, device=matrix.device))


@root.register
def _(matrix: Chain, shift: float) -> Root:
    thin = split(matrix)
    if thin is None:
        return _of_eigen(eigen(matrix, "sample"), matrix, shift)
    half = _half(thin, matrix)
    return _beside(half, root(_zero(matrix), shift)) if shift else half


@root.register
def _(matrix: Scaled, shift: float) -> Root:
    if matrix.scale <= 0:
        return _of_eigen(eigen(matrix, "sample"), matrix, shift)
    (inner, width), size = root(matrix.matrix, shift / matrix.scale), matrix.scale**0.5
    return (lambda z: size * inner(z)), width


@root.register
def _(matrix: Sum, shift: float) -> Root:
    parts, more = without_identity(matrix)
    thin = [part for part in parts if split(part) is not None]
    base = [part for part in parts if split(part) is None]
    if not thin or any(isinstance(part, Dense) for part in base):
        return _of_eigen(eigen(matrix, "sample"), matrix, shift)
    found = root(Sum(*base) if len(base) > 1 else base[0] if base else _zero(matrix), shift + more)
    for part in thin:
        found = _beside(found, root(part, 0.0))
    return found


@root.register
def _(matrix: Toeplitz, shift: float) -> Root:
    n, values = matrix.shape[0], matrix.values.double()
    if not torch.equal(values, values.flip(0)):
        raise no_rule(matrix, "sample", "it is not symmetric")
    column = values[n - 1 :].clone()
    column[0] += shift
    circle = torch.cat([column, column[1:-1].flip(0)]) if n > 1 else column
    spectrum = torch.fft.fft(circle).real
    if spectrum.min() < -NEGATIVE * spectrum.abs().max():
        if n > CONTINUED:
            raise no_rule(matrix, "sample", "the circulant that continues it is not positive semi-definite")
        return root(Dense(matrix.to_dense().double()), shift)
    scale = spectrum.clamp_min(0).sqrt()[:, None]

    def corner(z: Tensor) -> Tensor:
        # A circulant's symmetric root, of which the first rows are kept.
        drawn: Tensor = torch.fft.ifft(scale * torch.fft.fft(z, dim=0), dim=0).real[:n]
        return drawn

    return corner, len(circle)
