"""Optimal brain surgery in a fixed order of columns: what is changed in one, those behind it make up for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eckart.errors import Refused

BLOCK = 128
"""Columns whose changes reach those behind the block in one product."""
DAMPING = 1e-2


def sweep(rest: Tensor, passed: Tensor, change: Callable[[int, Tensor], None]) -> None:
    """Changes column after column of W in place, and each time the columns behind it: `W[:, k] -= e_j P[j, k]`, k > j.

    With `(C + damping mean(diag C) I)^-1 = U^T U` from `inverse_factor` the least increase of `||(W - What) C^1/2||` by
    a change of column j is had with `P = diag(U)^-1 U` and e_j what column j has lost, or `P = U` and `e_j / U[j, j]`
    (Frantar 2022, arXiv 2210.17323, eq. 2 and algorithm 1). Columns before k have reached it when it is changed.

    Args:
        rest: W^T (in, out), so that a column of W is one run of memory; the columns that were changed are as they were.
        passed: P (in, in), of the dtype of `rest`; the strict upper triangle is read.
        change: `change(j, e)` decides on column j, as it is in `rest[j]`, and writes e_j into e (out,). At a multiple
            of a divisor of 128 the next so many columns have been reached by all columns before them.
    """
    columns = len(rest)
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        errors = torch.empty_like(rest[first:last])
        for j in range(first, last):
            error = errors[j - first]
            change(j, error)
            rest[j + 1 : last].addr_(passed[j, j + 1 : last], error, alpha=-1)
        rest[last:].addmm_(passed[first:last, last:].T, errors, alpha=-1)


def inverse_factor(second_moment: Tensor, damping: float = DAMPING) -> Tensor:
    """U (in, in), float64, upper triangular, `U^T U = (C + damping mean(diag C) I)^-1`: U = R^-1 of `upper_factor`.

    One Cholesky factorisation and one triangular inverse; C is never inverted.

    Raises:
        Refused: C is not finite, or not positive semi-definite.
    """
    return inverse_triangle(upper_factor(second_moment, damping))


def upper_factor(second_moment: Tensor, damping: float = DAMPING) -> Tensor:
    """R (in, in), float64, upper triangular, `R R^T = C + damping mean(diag C) I`.

    With J the reversal of order and `J C J = L L^T` it is `R = J L J`.

    Raises:
        Refused: C is not finite, or not positive semi-definite.
    """
    moment = second_moment.double()
    # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
    if not (torch.isfinite(moment.sum()) or torch.isfinite(moment).all()):
        raise Refused("second moment has NaN or Inf entries")
    mean = float(moment.diagonal().mean())
    moment = (moment + moment.T) / 2
    moment.diagonal().add_(damping * mean if mean > 0 else 1.0)
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(moment.flip(0, 1))
    if int(info) != 0:
        raise Refused(f"second moment of shape {tuple(moment.shape)} is not positive semi-definite")
    return lower.flip(0, 1)


def inverse_triangle(upper: Tensor) -> Tensor:
    """The inverse of an upper triangular matrix, by halves: [[A, B], [0, D]]^-1 = [[A^-1, -A^-1 B D^-1], [0, D^-1]].

    A triangular solve against the identity takes no notice of its zeros, and twice as long.
    """
    n = len(upper)
    if n <= BLOCK:
        identity = torch.eye(n, dtype=upper.dtype, device=upper.device)
        solved: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
        return solved
    inverse, half = torch.zeros_like(upper), n // 2
    first, last = (slice(0, half), slice(half, n))
    for part in (first, last):
        inverse[part, part] = inverse_triangle(upper[part, part])
    inverse[first, last] = -inverse[first, first] @ (upper[first, last] @ inverse[last, last])
    return inverse
