"""Randomly pivoted Cholesky by blocks: the same law as one column after the other, in products of matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.distances import all_finite
from eckart.linalg.pivoted_cholesky import INDEFINITE, Pivots, pivoted_cholesky

NEAR = 2**17
"""Entries of new columns, 1 MiB of them, that are gone through from their computation to their part of the rest."""
VANISHING = 1e-100
"""Entries of a factor, by the root of the largest of A, whose products float64 still holds with all its digits.

They are zero in the factor: A differs by 1e-100 of its largest entry, and no product of two is one of the numbers below
2e-308 that processors add ten times slower than others.
"""


def rejection_cholesky(
    diagonal: Tensor,
    columns: Callable[[Tensor, slice], Tensor],
    rank: int,
    *,
    block: int | None = None,
    square: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 0.0,
    generator: torch.Generator | None = None,
) -> Pivots:
    """RPCholesky with blocks: candidates are drawn by the diagonal of the rest, and kept with what is left of it.

    A candidate i that was drawn in proportion to d_i is kept with probability d'_i / d_i, d' being the diagonal after
    those that were kept before it in its block: the kept ones are distributed as by RPCholesky (Epperly, Tropp and
    Webber 2024, arXiv 2410.03969). Only a block x block matrix is eliminated entry by entry.

    Args:
        diagonal: of A, (n,), not negative.
        columns: indices (b,) and rows -> A[rows, index].T, (b, rows).
        rank: columns to take; fewer where the rest is rounding, as in `pivoted_cholesky`.
        block: candidates at once; by default rank / 4, or rank / 8 without `square`, at least 10.
        square: indices (b,) -> A[index, index], (b, b); with it no columns are asked for but those that are taken.
        tolerance: of tr(A - F F^T), by tr(A): no further block is drawn where it is reached.
        generator: of the draws, on the CPU.

    Raises:
        Refused: NaN or Inf entries, a matrix that is not positive semi-definite, or a bad rank.
    """
    n = len(diagonal)
    if diagonal.ndim != 1 or not n or not 0 <= rank <= n:
        raise Refused(f"a diagonal of shape {tuple(diagonal.shape)} has no {rank} columns to take")
    rest = diagonal.detach().double().clone()
    largest = float(rest.abs().max())
    if not largest < float("inf"):
        raise Refused("NaN or Inf entries on the diagonal")
    # By a power of four the factor keeps its digits, and no product of two entries vanishes or overflows.
    half = math.frexp(largest)[1] // 2 if largest else 0
    up, down = math.ldexp(1.0, half), math.ldexp(1.0, -half)
    rest, largest = rest * down * down, largest * down * down
    negligible = n * torch.finfo(torch.float64).eps * largest
    size = max(10, rank // (8 if square is None else 4)) if block is None else max(1, block)
    enough = tolerance * float(rest.sum())
    whole = slice(0, n)
    # Columns of the factor lie together: a block of them is written, solved and summed where it stays.
    factor = torch.from_numpy(np.empty((rank, n))).to(rest.device)  # NumPy asks for pages of 2 MiB
    index, gains = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
    while True:
        if float(rest.min()) < -INDEFINITE * largest:
            if largest * up * up * INDEFINITE < torch.finfo(torch.float64).tiny:
                raise Refused("the matrix is as small as float64 holds: multiply what it is made of by a power of two")
            # Where a pivot is drawn that is far smaller than others, digits that A lost grow by division; they do not
            # where the largest goes first.
            one = lambda i: columns(torch.tensor([i], device=diagonal.device), whole)[0].detach().double() * down * down  # noqa: E731
            greedy = pivoted_cholesky(diagonal.detach().double() * down * down, one, rank, tolerance=tolerance)
            return Pivots(greedy.index, greedy.factor * up, greedy.gains * up * up, greedy.rest * up * up)
        rest = torch.where(rest > negligible, rest, 0.0)
        k = len(index)
        if k == rank or not rest.any() or float(rest.sum()) <= enough:
            break
        weight = rest.cpu()
        drawn = torch.multinomial(weight, size, replacement=True, generator=generator)
        chances = torch.rand(size, generator=generator, dtype=torch.float64)
        at = drawn.to(rest.device)
        if square is None:
            given = columns(at, whole)
            corner = given[:, at]
        else:
            given, corner = None, square(at)
        of_rest = corner.detach().double() * down * down - factor[:k, at].T @ factor[:k, at]
        kept, lower = _kept(finite(of_rest).cpu(), weight[drawn], chances, rank - k, negligible)
        of, taken, lower = kept.to(at.device), drawn[kept].to(at.device), lower.to(at.device)
        before = factor[:k, taken].T
        step = max(1, NEAR // max(len(kept), 1))
        for rows in (slice(i, min(i + step, n)) for i in range(0, n, step)):
            new = columns(taken, rows) if given is None else given[of, rows]
            new = finite(new.detach().double())
            new = vanished(new if down == 1 else (new * down).mul_(down)).addmm_(before, factor[:k, rows], alpha=-1)
            # Columns that lie together are what the library's solver takes as they are.
            torch.linalg.solve_triangular(lower.T, new.T, upper=True, left=False, out=new.T)
            torch.ops.aten.hardshrink.out(new, VANISHING, out=factor[k : k + len(kept), rows])
            rest[rows] -= new.square_().sum(0)
        index = torch.cat([index, drawn[kept]])
        rest[index.to(rest.device)] = 0
        gains = torch.cat([gains, lower.diagonal().square()])
    found = factor[: len(index)].T
    found = found if up == 1 else found.mul_(up)
    return Pivots(index.to(rest.device), found, gains.to(rest.device) * up * up, rest * up * up)


def finite(entries: Tensor) -> Tensor:
    """Entries of a matrix; Refused where one is NaN or infinite."""
    if not all_finite(entries):
        raise Refused("NaN or Inf entries in a column")
    return entries


def vanished(entries: Tensor) -> Tensor:
    """Entries, zero where they are VANISHING or smaller."""
    return torch.nn.functional.hardshrink(entries, VANISHING)


def _kept(matrix: Tensor, drawn_by: Tensor, chances: Tensor, most: int, negligible: float) -> tuple[Tensor, Tensor]:
    """Candidates that are kept, in turn, and the Cholesky factor of their part of the rest."""
    left = matrix.numpy().copy()
    kept: list[int] = []
    roots = np.zeros_like(left)
    for i, needed in enumerate((chances * drawn_by).tolist()):
        gain = float(left[i, i])
        if len(kept) < most and gain > negligible and needed < gain:
            root = roots[i:, len(kept)]
            np.divide(left[i:, i], gain**0.5, out=root)
            left[i:, i:] -= np.outer(root, root)
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64), torch.from_numpy(roots[kept, : len(kept)])
