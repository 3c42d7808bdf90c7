"""Matrices that only move entries: permutations, and selections of rows or columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.errors import Refused
from eckart.structures._checks import check_distinct, check_range, flag_option, index_leaf, size_option
from eckart.structures.base import StructuredMatrix, structure


def gather(x: Tensor, index: Tensor) -> Tensor:
    """x[..., index]: x (..., n), index (k,) in 32 or 64 bits."""
    # Forward, 32-bit indices are taken as they are; the backward pass is several times faster with 64.
    return torch.index_select(x, -1, index.long() if x.requires_grad else index)


def scatter(x: Tensor, index: Tensor, size: int) -> Tensor:
    """y with y[..., index[i]] the sum of all such x[..., i], the transpose of `gather`: x (..., k), y (..., size)."""
    return x.new_zeros(*x.shape[:-1], size).index_add_(-1, index.long(), x)


class _Move(StructuredMatrix):
    index: Tensor

    def _index(self, index: Tensor, limit: int) -> None:
        # 32 bits even where 16 would do: the gather takes them as they are, on the path of every token.
        self.leaf("index", index_leaf(type(self).__name__, "index", index, 1, limit, torch.int32))

    def to_dense(self) -> Tensor:
        dense: Tensor = self(torch.eye(self.shape[1], dtype=self.dtype, device=self.device)).T
        return dense


@structure("permutation")
class Permutation(_Move):
    """`(W x)[i] = x[index[i]]`.

    Args:
        index: (n,), integer, a permutation of 0..n-1; stored in 32 bits.
    """

    def __init__(self, index: Tensor) -> None:
        n = index.shape[0] if isinstance(index, Tensor) and index.ndim == 1 else 1
        super().__init__((n, n))
        self._index(index, n)

    def forward(self, x: Tensor) -> Tensor:
        return gather(x, self._buffers["index"])  # type: ignore[arg-type]

    def rows(self, index: Tensor) -> Tensor:
        return F.one_hot(self.index[index.long()].long(), self.shape[1]).to(self.dtype)

    def check_values(self) -> None:
        check_range("Permutation", "index", self.index, self.shape[0])
        check_distinct("Permutation", "index", self.index)


@structure("selection")
class Selection(_Move):
    """Picks entries, `(W x)[i] = x[index[i]]`, W (k, size), or puts them back, `(W x)[index[i]] = x[i]`, W (size, k).

    Args:
        index: (k,), integer, below `size`; distinct if adjoint; stored in 32 bits.
        size: the longer side.
        adjoint: whether entries are put back, and W is the transpose.
    """

    def __init__(self, index: Tensor, *, size: int, adjoint: bool = False) -> None:
        size_option("Selection", "size", size)
        self.adjoint = flag_option("Selection", "adjoint", adjoint)
        k = index.shape[0] if isinstance(index, Tensor) and index.ndim == 1 else 1
        if adjoint and k > size:
            raise Refused(f"Selection: {k} entries cannot go to distinct places among {size}")
        super().__init__((size, k) if adjoint else (k, size))
        self._index(index, size)

    def options(self) -> dict[str, int | bool]:
        return {"size": self._size, "adjoint": self.adjoint}

    @property
    def _size(self) -> int:
        return self.shape[0] if self.adjoint else self.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.adjoint:
            return scatter(x, self.index, self.shape[0])
        return gather(x, self.index)

    def rows(self, index: Tensor) -> Tensor:
        if self.adjoint:
            return (self.index == index[..., None]).to(self.dtype)
        return F.one_hot(self.index[index.long()].long(), self.shape[1]).to(self.dtype)

    def check_values(self) -> None:
        check_range("Selection", "index", self.index, self._size)
        if self.adjoint:
            check_distinct("Selection", "index", self.index)
