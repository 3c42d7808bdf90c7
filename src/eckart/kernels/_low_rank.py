"""Gram matrices in the span of a few rows, with what is left of the diagonal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._points import with_gradient
from eckart.linalg.rejection_cholesky import rejection_cholesky
from eckart.scikit.base import at_least_one
from eckart.structures import Chain, Dense, Diagonal, StructuredMatrix, Sum


def low_rank_plus_diagonal(kernel: Any, x: Tensor, rank: int, generator: torch.Generator | None) -> StructuredMatrix:
    """F F^T + D of F (n, r) by rows S that RPCholesky draws, and D what F F^T leaves of the diagonal.

    F = k(X, S) L^-T with L L^T = k(S, S): the diagonal and the columns of S are those of the kernel. Dense where as
    many rows are drawn as there are, or none.

    Args:
        kernel: k.
        x: inputs that the kernel has checked, n of them.
        rank: rows to draw, at most.
        generator: of the draws.

    Raises:
        Refused: a rank below 1, or a kernel that is not positive semi-definite on these rows.
    """
    at_least_one(rank=rank)
    with torch.no_grad():

        def square(index: Tensor) -> Tensor:
            some = x[index]
            found: Tensor = kernel._between(some, some)
            return found

        def columns(index: Tensor, rows: slice) -> Tensor:
            found: Tensor = kernel._between(x[index], x[rows])
            return found

        count = min(rank, len(x))
        drawn = rejection_cholesky(kernel._diagonal(x), columns, count, square=square, generator=generator).index
    if not 0 < len(drawn) < len(x):
        return with_gradient(Dense, kernel._between(x, x))
    some = x[drawn]
    root, failed = torch.linalg.cholesky_ex(kernel._between(some, some))
    if failed:
        raise Refused(f"rank={rank}: {len(drawn)} rows of {len(x)} are alike to working precision: take a smaller rank")
    across: Tensor = torch.linalg.solve_triangular(root, kernel._between(some, x), upper=False)
    rest = (kernel._diagonal(x) - across.square().sum(0)).clamp_min(0)
    product = Chain(with_gradient(Dense, across.T.contiguous()), with_gradient(Dense, across))
    return Sum(product, with_gradient(Diagonal, rest))
