"""Functions of a matrix without negative entries: its first powers as sums, and only what is left by eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Literal

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
RESOLVED = 1e8
"""By how much an entry has to stand above the rounding of the largest for its logarithm to be taken of it."""
MOST = 16
"""Powers that are kept, an even number."""
NUMBERS = 2**25
"""That all of them may hold together."""
LONGEST = 60.0
"""The exponent above which the tail of its series is no shorter than the series."""

Series = Literal["geometric", "exponential"]


def product_of(values: Tensor, factor: Tensor) -> Tensor:
    """F diag(values) F^T of F (n, m), by one triangle where no value is negative and no gradient is asked for.

    Columns are left out whose values are below the rounding of the largest entry, which is no less than the largest
    value by n where the columns are orthonormal.
    """
    if values.requires_grad or factor.requires_grad:
        return (factor * values) @ factor.T
    least, most = (float(each) for each in values.aminmax())
    if least < 0:
        return (factor * values) @ factor.T
    if least <= EPS / len(factor) * most:
        kept = values > EPS / len(factor) * most
        values, factor = values[kept], factor[:, kept]
    # NumPy takes a matrix times its own transpose by one triangle, PyTorch does not.
    root = (factor * values.sqrt()).numpy()
    return torch.from_numpy(root @ root.T)


def resolved(found: Tensor, series: Series, x: float) -> bool:
    """Whether all entries of f(s B), made by eigenvalues of B, have digits of their own; x = s |B|.

    That product is f of another matrix s (B + E), |E| of the rounding of B. To first order f moves by a mean of
    e^(u s B) s E e^((1 - u) s B), whose entry is at most |s E| times the larger of the norms of the rows i and j, as
    norms of rows are convex in u; or by f s E f, at most the product of the two. Where the first eigenvector makes up
    what there is, all entries are as exact as it, however far below the largest they are.
    """
    rows = found.norm(dim=1)
    across = rows[:, None]
    size = x * across * rows if series == "geometric" else max(1.0, x) * torch.maximum(across, rows)
    return bool((found > RESOLVED * EPS * size).all())


def tail(series: Series, x: Tensor, first: int) -> Tensor:
    """sum_k>=first x^k, or of x^k / k!; each to the rounding of that of the largest |x|."""
    if series == "geometric":
        return x**first / (1 - x)
    if first == 0:
        return x.exp()
    start = torch.ones_like(x)
    for k in range(1, first + 1):
        start = start * x / k
    most, ratio, terms = float(x.detach().abs().max()), 1.0, 0
    while ratio > EPS / 4 or terms < most:
        terms += 1
        ratio *= most / (first + terms)
    down = torch.arange(first + 1, first + terms + 1, dtype=x.dtype, device=x.device)
    return start * (1 + (x / down[:, None]).cumprod(0).sum(0))


class Walks:
    """A connected matrix B without negative entries, and the powers of B by its spectral radius, each made once.

    f(s B) of a series f is the sum of the powers below the m-th, no entry of which is a difference, and the tail by
    eigenvalues. The rounding of eigenvalues is that of the tail's norm, and so is gone where m is large enough: an
    entry between two that are d steps apart has d powers that say nothing of it, and digits of its own from the d-th.

    Args:
        b: B (n, n).
        values: its eigenvalues.
        vectors: its eigenvectors.
    """

    def __init__(self, b: Tensor, values: Tensor, vectors: Tensor) -> None:
        self.b, self.values, self.vectors = b, values, vectors
        self.radius = float(values.abs().max())
        n = len(b)
        self.most = min(MOST, NUMBERS // n**2) // 2 * 2 if self.radius > 0 else 0
        self._powers = torch.empty((self.most, n, n), dtype=b.dtype)
        self._made = 0
        self._least: list[float] | None = None

    def powers(self, count: int) -> Tensor:
        """(B / radius)^0 to the one before the count-th."""
        while self._made < count:
            if self._made == 0:
                self._powers[0] = torch.eye(len(self.b), dtype=self.b.dtype)
            else:
                torch.mm(self._powers[self._made - 1], self.b / self.radius, out=self._powers[self._made])
            self._made += 1
        return self._powers[:count]

    @property
    def least(self) -> list[float]:
        """The least entry of the d-th power between two that are d steps apart; none where some are more apart."""
        if self._least is None:
            found: list[float] = []
            unseen = torch.ones_like(self.b, dtype=torch.bool)
            for d in range(self.most):
                power = self.powers(d + 1)[d]
                fresh = unseen & (power > 0)
                found.append(float(power[fresh].min()) if bool(fresh.any()) else float("inf"))
                unseen &= ~fresh
                if not bool(unseen.any()):
                    break
            self._least = [] if bool(unseen.any()) else found
        return self._least

    def enough(self, series: Series, s: float) -> int | None:
        """The least even m whose tail is small enough beside each entry by a bound; None where no m up to `most` is."""
        x = s * self.radius
        if not self.least or x > (1 if series == "geometric" else LONGEST):
            return None
        term, low = 1.0, self.least[0]
        for d, least in enumerate(self.least[1:], 1):
            term *= x if series == "geometric" else x / d
            low = min(low, term * least)
        term = 1.0
        for m in range(self.most + 1):
            # The ratio of a term to the one before is x, or at most x / (m + 1).
            ratio = x if series == "geometric" else x / (m + 1)
            size = term / (1 - ratio) if ratio < 1 else exp(x)
            if m % 2 == 0 and low > RESOLVED * EPS * size:
                return m
            term *= ratio
        return None

    def short(self, series: Series, s: Tensor, needed: Sequence[int | None]) -> dict[int, Tensor]:
        """The sums of the first m terms of f(s B) at each s (k,), for those of which an m is told; one product for all.

        Args:
            series: f.
            s: (k,).
            needed: m or None, k of them.
        """
        asked = [at for at, m in enumerate(needed) if m]
        if not asked:
            return {}
        most, n = max(needed[at] or 0 for at in asked), len(self.b)
        k = torch.arange(most, dtype=torch.float64)
        terms = (s[asked] * self.radius)[:, None] ** k
        if series == "exponential":
            terms = terms / torch.lgamma(k + 1).exp()
        terms = terms * (k < torch.tensor([needed[at] or 0 for at in asked])[:, None])
        return dict(zip(asked, (terms @ self.powers(most).view(most, n * n)).view(-1, n, n), strict=True))
