"""The matrix of a kernel between the rows of a table, of which no more is computed than is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._checks import blocks
from eckart.kernels._kernel import Kernel
from eckart.kernels._stationary import Stationary
from eckart.machine import memory_available

NEAR = 32
"""How many times less than AT_ONCE is computed where each entry is gone through several times: it stays in a cache."""
TILE = 512
"""Rows and columns of a tile of a symmetric matrix whose products are taken tile by tile, so that caches hold it."""
WIDE = 1e4
"""Squared sizes, in lengthscales, up to which |x|^2 + |z|^2 - 2 x z rounds a kernel by 1e-11 at most."""


@dataclass(frozen=True)
class Gram:
    """The matrix of a kernel between rows, of which no more is computed than is asked for.

    Attributes:
        kernel: None where the matrix itself is given.
        x: rows (n, d); or the matrix (n, n).
    """

    kernel: Kernel | None
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @torch.no_grad()
    def diagonal(self) -> Tensor:
        """(n,)."""
        return self.x.diagonal().clone() if self.kernel is None else finite(self.kernel.diag(self.x))

    @torch.no_grad()
    def between(self, rows: Any, columns: Any) -> Tensor:
        """The entries of rows and columns, each an index or a slice; Refused where they are NaN or Inf."""
        if self.kernel is None:
            return self.x[rows][:, columns]
        same = isinstance(rows, slice) and rows == columns
        return finite(self.kernel(self.x[rows], None if same else self.x[columns]))

    def square(self, index: Tensor) -> Tensor:
        """(b, b) of an index."""
        return self.between(index, index)

    def columns(self, index: Tensor) -> Tensor:
        """(n, b), each column in one piece, by blocks of rows, so that what is needed on the way stays small."""
        made = torch.empty(len(index), len(self), dtype=torch.float64)
        for rows in blocks(len(self), NEAR * len(index)):
            made[:, rows] = self.between(index, rows)
        return made.T

    @torch.no_grad()
    def tile(self) -> Callable[[slice, slice], Tensor]:
        """Computes the entries of rows and columns for products, which a rounding of 1e-11 does not hurt.

        Squared distances are a product of matrices then, where `between` takes differences of few dimensions one by
        one: five times the speed.
        """
        if not isinstance(self.kernel, Stationary) or not self.kernel.smooth:
            return self.between
        kernel, x = self.kernel, self.kernel.scaled(self.x)
        size = x.square().sum(1)
        if not float(size.max()) <= WIDE:
            return self.between

        def found(rows: slice, columns: slice) -> Tensor:
            squares = torch.addmm(size[columns], x[rows], x[columns].T, alpha=-2).add_(size[rows, None]).clamp_min_(0)
            if rows == columns:
                squares.fill_diagonal_(0)
            return kernel.profile(squares)

        return found

    def times(self, v: Tensor) -> Tensor:
        """K v for v (n, k), each tile of a symmetric matrix computed once and used twice."""
        n, out, entries = len(self), torch.zeros_like(v), self.tile()
        tiles = [slice(at, min(at + TILE, n)) for at in range(0, n, TILE)]
        for i, rows in enumerate(tiles):
            out[rows] += entries(rows, rows) @ v[rows]
            for columns in tiles[:i]:
                tile = entries(rows, columns)
                out[rows] += tile @ v[columns]
                out[columns] += tile.T @ v[rows]
        return out

    def whole(self, doing: str, instead: str, copies: int = 2) -> Tensor:
        """K (n, n); Refused where some copies of it do not fit into memory.

        Args:
            doing: what needs it.
            instead: what does not.
            copies: matrices of this size that are held at once.
        """
        size = 8 * len(self) ** 2 * copies
        if self.kernel is not None and size > memory_available():
            raise Refused(
                f"{doing} writes out matrices of {len(self)} x {len(self)}, {size / 2**30:.1f} GiB in all, more than "
                f"there is memory: take {instead}"
            )
        whole = slice(None)
        return self.between(whole, whole).clone()


def finite(entries: Tensor) -> Tensor:
    """Entries of a kernel; Refused where one is NaN or infinite."""
    # A sum is read faster than a mask is written; it may overflow where no entry is infinite.
    if not torch.isfinite(entries.sum()) and not torch.isfinite(entries).all():
        raise Refused("the kernel of these rows has NaN or Inf entries: divide X by its scale")
    return entries
