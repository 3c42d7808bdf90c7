"""Inverses of small parts, and what is raised where there is none."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._operators import Columns, no_rule
from eckart.structures import StructuredMatrix


def singular(matrix: StructuredMatrix, shift: float, smallest: float) -> Refused:
    return Refused(
        f"{type(matrix).__name__} of shape {matrix.shape} with shift={shift:g} is singular (to working precision: "
        f"{smallest:.2g} where the largest is 1). Take a larger shift, or the shortest solution with "
        "linalg.krylov.lsqr"
    )


def reciprocal(values: Tensor, matrix: StructuredMatrix, shift: float) -> Tensor:
    """1 / values, which are refused where one is nothing beside the largest."""
    size = values.abs()
    largest = size.max()
    if not size.min() > 1e-15 * largest:
        raise singular(matrix, shift, float(size.min() / largest) if largest > 0 else 0.0)
    return values.reciprocal()


def factored(weight: Tensor, matrix: StructuredMatrix, shift: float) -> Columns:
    """The inverse of W (..., n, n) on (..., n, k)."""
    if weight.shape[-1] != weight.shape[-2]:
        raise no_rule(matrix, "solve", f"a part of shape {tuple(weight.shape[-2:])} is not square")
    shifted = weight.double() + shift * torch.eye(weight.shape[-1], dtype=torch.float64, device=weight.device)
    lu, pivots, info = torch.linalg.lu_factor_ex(shifted)
    if info.any():
        raise singular(matrix, shift, 0.0)
    return lambda x: torch.linalg.lu_solve(lu, pivots, x)
