"""Cholesky with pivots: a positive semi-definite matrix from a few of its columns, taken one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused

INDEFINITE = 1e-6
"""A negative entry on the diagonal of the rest, by the largest of A, that no rounding explains."""


@dataclass(frozen=True)
class Pivots:
    """A ~ F F^T from k of its columns.

    Attributes:
        index: the columns in the order in which they were taken, (k,), int64.
        factor: F (n, k), float64; rows and columns `index` of F F^T are those of A.
        gains: (k,), above zero: what the rest had on its diagonal where a column was taken. Their product is the
            determinant of A[index, index].
        rest: the diagonal of A - F F^T, (n,), not negative, zero at `index`.
    """

    index: Tensor
    factor: Tensor
    gains: Tensor
    rest: Tensor

    @property
    def error(self) -> float:
        """tr(A - F F^T), which is the nuclear norm of the rest and a bound of its other norms."""
        return float(self.rest.sum())

    @property
    def logdet(self) -> float:
        """ln det A[index, index]; 0 where no column was taken."""
        return float(self.gains.log().sum())


def within_rounding(column: Tensor, largest: float) -> bool:
    """Whether a column of the rest is no larger than digits that A lost, as a matrix that came out of float32.

    In them no pivot dominates its column, and to divide by its root makes entries of any size.
    """
    return float(column.abs().max()) <= INDEFINITE * largest


def greatest(rest: Tensor) -> int:
    """The first of the largest entries."""
    return int(rest.argmax())


def pivoted_cholesky(
    diagonal: Tensor,
    column: Callable[[int], Tensor],
    rank: int,
    *,
    choose: Callable[[Tensor], int] = greatest,
    tolerance: float = 0.0,
) -> Pivots:
    """The first steps of the Cholesky decomposition of a matrix A, in an order that is chosen on the way.

    With d the diagonal of the rest A - F F^T and i the column that is taken, f = (A_i - F F_i^T) / sqrt(d_i) is the
    next column of F, and d falls by f^2: O(n k) for each of k columns, and no more of A is asked for than they are.
    The largest d_i each time is greedy for the determinant of A[index, index], the gain of a step being the factor d_i
    (Fine and Scheinberg 2001; Chen, Zhang and Zhou 2018); drawn in proportion to d it is RPCholesky (Chen, Epperly,
    Tropp and Webber 2022).

    Args:
        diagonal: of A, (n,), not negative.
        column: i -> A[:, i], (n,).
        rank: columns to take; fewer where the rest is rounding: n eps times the largest entry of A, or INDEFINITE of it
            where a column of that size leaves less than zero on the diagonal.
        choose: the diagonal of the rest, (n,), zero where nothing can be taken -> i, which has more than zero there.
        tolerance: of tr(A - F F^T), by tr(A): no further column is taken where it is reached.

    Raises:
        Refused: NaN or Inf entries, a matrix that is not positive semi-definite, a bad rank, or a bad choice.
    """
    n = len(diagonal)
    if diagonal.ndim != 1 or not n or not 0 <= rank <= n:
        raise Refused(f"a diagonal of shape {tuple(diagonal.shape)} has no {rank} columns to take")
    rest = diagonal.detach().double().clone()
    largest = float(rest.abs().max())
    if not largest < float("inf"):
        raise Refused("NaN or Inf entries on the diagonal")
    negligible = n * torch.finfo(torch.float64).eps * largest
    enough = tolerance * float(rest.sum())
    factor = torch.zeros(rank, n, dtype=torch.float64, device=rest.device)
    index: list[int] = []
    gains: list[float] = []
    while True:
        low, place = rest.min(0)
        if float(low) < -INDEFINITE * largest:
            raise Refused(
                f"the matrix is not positive semi-definite: {float(low):.3g} is left on the diagonal at {int(place)}"
            )
        rest = torch.where(rest > negligible, rest, 0.0)
        k = len(index)
        if k == rank or not rest.any() or float(rest.sum()) <= enough:
            break
        i = choose(rest)
        gain = float(rest[i])
        if not gain > 0:
            raise Refused(f"column {i} was chosen, of which nothing is left; choose where the rest is above zero")
        left = column(i).detach().double() - factor[:k, i] @ factor[:k]
        if not torch.isfinite(left).all():
            raise Refused(f"NaN or Inf entries in column {i}")
        f = left / gain**0.5
        f[i] = gain**0.5
        f[index] = 0
        fallen = rest - f.square()
        fallen[i] = 0
        if float(fallen.min()) < -INDEFINITE * largest and within_rounding(left, largest):
            break
        factor[k], rest = f, fallen
        index.append(i)
        gains.append(gain)
    taken = torch.tensor(index, dtype=torch.int64, device=rest.device)
    kept = torch.tensor(gains, dtype=torch.float64, device=rest.device)
    return Pivots(taken, factor[: len(index)].T, kept, rest)
