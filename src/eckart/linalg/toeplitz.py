"""Systems with a Toeplitz matrix: Levinson's recursion, and conjugate gradients where that would be long."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import solve_toeplitz
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._operators import Columns, no_rule, product
from eckart.linalg.krylov import pcg
from eckart.structures import Toeplitz

LONG = 4096
"""Rows from which on conjugate gradients are tried before the n^2 operations of Levinson's recursion."""
STEPS = 100
"""Of them; a step is four Fourier transforms of 2 n numbers."""
EXACT = 1e-15
"""Of the backward error at which they stop."""


def toeplitz_inverse(matrix: Toeplitz, shift: float) -> Columns:
    """(T + shift I)^-1 as a function of columns (n, k).

    Of a long one that is symmetric positive definite it is by conjugate gradients, T. Chan's circulant
    c_k = ((n - k) t_k + k t_(n-k)) / n before them (1988, SIAM J. Sci. Stat. Comput. 9); where these do not arrive
    within 100 steps, and of all others, by Levinson's recursion.
    """
    n = matrix.shape[0]
    values = matrix.values.double().clone()
    values[n - 1] += shift
    near = _nearest_circulant(values[n - 1 :]) if n >= LONG and torch.equal(values, values.flip(0)) else None
    plain = values.cpu().numpy()
    column, row = plain[n - 1 :], plain[n - 1 :: -1]

    def levinson(x: Tensor) -> Tensor:
        try:
            found = solve_toeplitz((column, row), x.cpu().numpy())
        except np.linalg.LinAlgError as error:
            raise no_rule(
                matrix, "solve", "a leading block of it is singular, which ends Levinson's recursion"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(found)).to(x.device)

    def gradients(x: Tensor) -> Tensor:
        assert near is not None
        scale = 1 / near[:, None]
        try:
            found = pcg(
                lambda p: product(matrix, p),
                x,
                shift=shift,
                preconditioner=lambda r: torch.fft.irfft(scale * torch.fft.rfft(r, dim=0), n, dim=0),
                tolerance=EXACT,
                iterations=STEPS,
            )
        except Refused:  # not positive definite
            return levinson(x)
        value: Tensor = found.value
        return value if found.converged else levinson(x)

    return levinson if near is None else gradients


def _nearest_circulant(column: Tensor) -> Tensor | None:
    """Eigenvalues (n // 2 + 1,) of the circulant next to a symmetric Toeplitz matrix; None where not all are above 0.

    Args:
        column: t (n,), the first of the matrix.
    """
    n = len(column)
    k = torch.arange(n, dtype=torch.float64, device=column.device)
    wrapped = column.flip(0).roll(1)  # t_(n-k), with whatever in the place of t_n, which counts 0 times
    found: Tensor = torch.fft.rfft(((n - k) * column + k * wrapped) / n).real
    return found if bool((found > 1e-14 * found.abs().amax()).all()) else None
