"""Conjugate gradients on products that are fast and rough, until residuals by exact ones are small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.linalg._operators import as_came, columns_of, operator
from eckart.linalg.krylov import pcg
from eckart.linalg.solution import Solution

LEAST = 0.5
"""What a round of rough products has to bring the residual down to: where it does not, the rest are exact ones."""


@torch.no_grad()
def refined(
    A: Any,
    rough: Any,
    b: Any,
    *,
    shift: float = 0.0,
    preconditioner: Any = None,
    tolerance: float = 1e-6,
    iterations: int | None = None,
) -> Solution[Any]:
    """x with (A + shift I) x = b, symmetric positive definite, most of whose products are by a matrix near A.

    Rounds of `krylov.pcg` by the rough products, each on what the last left by A itself (iterative refinement:
    Wilkinson 1963; Higham 2002, section 12), so that A is asked for once a round, and what is said of the residual is
    true. A round leaves about |A - rough| / shift of the residual at the least.

    Args:
        A: (n, n), as in `pcg`.
        rough: (n, n), near A and faster, as in `pcg`.
        b: (n,) or (n, k).
        shift: added to the diagonal of both.
        preconditioner: an approximate inverse, as in `pcg`.
        tolerance: of |b - (A + shift I) x| / |b| of every column.
        iterations: of all rounds together; by default 10 n.

    Returns:
        x as b came; `error` holds |b - A x| / |b| by A of each column, `history` what each step left, as the rough
        products have it; `calls` counts products of both kinds.

    Raises:
        Refused: as `pcg`.
    """
    n = len(b)
    times, _ = operator(A, b)
    rhs = columns_of(b, n, b.device if isinstance(b, Tensor) else torch.device("cpu"))
    x, r, norm = torch.zeros_like(rhs), rhs, rhs.norm(dim=0)
    left, calls, history = 10 * n if iterations is None else iterations, 0, list[float]()
    error, by = torch.ones_like(norm) * (norm > 0), rough
    while left > 0 and (error > tolerance).any():
        # Columns that are done stay as they are; of the others none may stop before it has what it lacks.
        open_ = error > tolerance
        lacks = float((0.9 * tolerance / error[open_]).min())
        found = pcg(
            by,
            torch.where(open_, r, 0.0),
            shift=shift,
            preconditioner=preconditioner,
            tolerance=max(lacks, torch.finfo(torch.float64).eps),
            iterations=left,
            backward=False,
        )
        there = x + found.value
        rest = rhs - times(there) - shift * there
        fresh = torch.where(norm > 0, rest.norm(dim=0) / norm.where(norm > 0, 1.0), 0.0)
        worst = float(error.max())
        history += [worst * each for each in found.history]
        left, calls = left - found.iterations, calls + found.calls + 1
        if not (fresh[open_] <= LEAST * error[open_]).all():
            if by is A or not found.iterations:
                break
            by = A
        better = fresh < error
        x, r, error = torch.where(better, there, x), torch.where(better, rest, r), torch.where(better, fresh, error)
    worst = float(error.max()) if error.numel() else 0.0
    reached = worst <= tolerance
    text = f"the residual by |b| is {worst:.3g}"
    text += "" if reached else f", above {tolerance:.3g}: more iterations, or a preconditioner"
    return Solution(as_came(x, b), reached, len(history), history, text, calls, error.cpu().numpy())
