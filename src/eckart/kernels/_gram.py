"""The matrix of a kernel between the rows of a table, of which no more is computed than is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._stationary import Stationary
from eckart.linalg.distances import all_finite
from eckart.machine import memory_available

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

    @torch.no_grad()
    def columns(self) -> Callable[[Tensor, slice], Tensor]:
        """Computes the entries (b, r) of b columns, by an index, and r rows.

        Squared distances are products of matrices where they round a kernel by less than n roundings of one.
        """
        sides = self._sides(min(WIDE, len(self) / 4))
        if sides is None:
            return lambda index, rows: self.between(index, rows)
        left, right = sides
        diagonal = self.diagonal()

        @torch.no_grad()
        def of(index: Tensor, rows: slice) -> Tensor:
            found = self._profile(left[index], right[rows])
            at = index - rows.start
            inside = ((at >= 0) & (at < found.shape[1])).nonzero()[:, 0]
            found[inside, at[inside]] = diagonal[index[inside]]
            return finite(found)

        return of

    def _sides(self, wide: float) -> tuple[Tensor, Tensor] | None:
        """L and R (n, d + 2), L R^T the squared distances of a smooth kernel; None where some size is above `wide`."""
        if not isinstance(self.kernel, Stationary) or not self.kernel.smooth:
            return None
        x = self.kernel.scaled(self.x)
        left = x.new_empty(len(x), x.shape[1] + 2)
        torch.sub(x, x.mean(0), out=left[:, 2:])
        size = torch.linalg.vector_norm(left[:, 2:], dim=1).square()
        if not float(size.max()) <= wide:
            return None
        left[:, 0], left[:, 1] = size, 1
        right = x.new_empty(left.shape)
        right[:, 0], right[:, 1] = 1, size
        torch.mul(left[:, 2:], -2, out=right[:, 2:])
        return left, right

    def _profile(self, left: Tensor, right: Tensor, same: bool = False) -> Tensor:
        squares = (left @ right.T).clamp_min_(0)
        if same:
            squares.fill_diagonal_(0)
        assert isinstance(self.kernel, Stationary)
        return self.kernel.profile(squares)

    @torch.no_grad()
    def tile(self, dtype: torch.dtype = torch.float64) -> Callable[[slice, slice], Tensor]:
        """Computes the entries of rows and columns for products, which a rounding of 1e-11 does not hurt.

        Squared distances are a product of matrices then, where `between` takes differences of few dimensions one by
        one: five times the speed, and more in float32, whose roundings are for `rounding` to say.
        """
        sides = self._sides(WIDE)
        if sides is None:
            return self.between
        left, right = (each.to(dtype) for each in sides)
        return lambda rows, columns: self._profile(left[rows], right[columns], rows == columns)

    @torch.no_grad()
    def rounding(self) -> float:
        """A bound, by even samples, of the norm of what products by tiles of float32 add to K; Inf without such tiles.

        By n / m of what a tile of m rows has, as if all of it had one sign: signs that differ make it sqrt(n / m).
        """
        if self.kernel is None:
            return float("inf")
        few = Gram(self.kernel, self.x[:: -(-len(self) // TILE)])
        rows = slice(0, len(few))
        rough = few.tile(torch.float32)(rows, rows)
        if rough.dtype != torch.float32:
            return float("inf")
        return float(torch.linalg.matrix_norm(rough.double() - few.between(rows, rows), 2)) * len(self) / len(few)

    def times(self, v: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """K v for v (n, k) in float64, each tile of a symmetric matrix computed once and used twice.

        Args:
            v: (n, k).
            dtype: of the tiles; sums of them are in float64.
        """
        n, out, entries, given = len(self), torch.zeros_like(v), self.tile(dtype), v.to(dtype)
        step = TILE * 8 // dtype.itemsize
        tiles = [slice(at, min(at + step, n)) for at in range(0, n, step)]
        for i, rows in enumerate(tiles):
            out[rows] += entries(rows, rows) @ given[rows]
            for columns in tiles[:i]:
                tile = entries(rows, columns)
                out[rows] += tile @ given[columns]
                out[columns] += tile.T @ given[rows]
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
    if not all_finite(entries):
        raise Refused("the kernel of these rows has NaN or Inf entries: divide X by its scale")
    return entries
