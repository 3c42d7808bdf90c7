"""Matrices with few non-zero entries, in compressed sparse rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.ops.native.sparse import SPARSE
from eckart.ops.sparse_product import sparse_product
from eckart.structures._checks import check_range, float_leaf, index_leaf, size_option
from eckart.structures._fused import part
from eckart.structures.base import StructuredMatrix, structure


@structure("sparse")
class Sparse(StructuredMatrix):
    """A matrix of which `nnz` entries are stored, row after row; the values train, their places do not.

    Row i holds `values[offsets[i]:offsets[i + 1]]` in the columns `columns[offsets[i]:offsets[i + 1]]`, which ascend.
    A stored value may be zero.

    Args:
        values: (nnz,), floating point.
        columns: (nnz,), integer; stored in 16 bits where `size` allows it.
        offsets: (out + 1,), integer, from 0 to nnz.
        size: number of columns, in.
    """

    values: nn.Parameter
    columns: Tensor
    offsets: Tensor

    def __init__(self, values: Tensor, columns: Tensor, offsets: Tensor, *, size: int) -> None:
        size_option("Sparse", "size", size)
        nnz = float_leaf("Sparse", "values", values, 1).shape[0]
        columns = index_leaf("Sparse", "columns", columns, 1, size)
        offsets = index_leaf("Sparse", "offsets", offsets, 1, nnz)
        if columns.shape[0] != nnz:
            raise Refused(f"Sparse: {nnz} values but {columns.shape[0]} columns; each value needs one")
        super().__init__((offsets.shape[0] - 1, size))
        self.leaf("values", values)
        self.leaf("columns", columns)
        self.leaf("offsets", offsets)
        self._product = Product(SPARSE)

    @classmethod
    def from_dense(cls, weight: Tensor) -> Sparse:
        """Keeps the non-zero entries of `weight` (out, in)."""
        weight = float_leaf("Sparse", "weight", weight, 2).detach()
        places = weight != 0
        offsets = F.pad(places.sum(1).cumsum(0), (1, 0))
        return cls(weight[places], places.nonzero()[:, 1], offsets, size=weight.shape[1])

    def options(self) -> dict[str, int]:
        return {"size": self.shape[1]}

    def forward(self, x: Tensor) -> Tensor:
        leaves = self._parameters["values"], self._buffers["columns"], self._buffers["offsets"]
        if (y := self._product(x, leaves, (self.shape[1],))) is not None:
            return y
        index = torch.promote_types(torch.promote_types(self.columns.dtype, self.offsets.dtype), torch.int32)
        flat = x.reshape(-1, self.shape[1])
        y = sparse_product(self.values, self.columns.to(index), self.offsets.to(index), flat)
        return y.reshape(*x.shape[:-1], self.shape[0])

    def recipe(self) -> Recipe:
        return ((part(self, SPARSE, ("values", "columns", "offsets"), (self.shape[1],)),),)

    def to_dense(self) -> Tensor:
        row = torch.arange(self.shape[0], device=self.device).repeat_interleave(self.offsets.long().diff())
        return self.values.new_zeros(self.shape).index_put((row, self.columns.long()), self.values)

    def rows(self, index: Tensor) -> Tensor:
        flat, offsets = index.reshape(-1).long(), self.offsets.long()
        count = offsets[flat + 1] - offsets[flat]
        row = torch.arange(flat.shape[0], device=self.device).repeat_interleave(count)
        # place of each wanted value: start of its row, plus its rank among the values wanted from that row
        place = offsets[flat][row] + torch.arange(row.shape[0], device=self.device) - (count.cumsum(0) - count)[row]
        y = self.values.new_zeros(flat.shape[0], self.shape[1])
        y = y.index_put((row, self.columns.long()[place]), self.values[place])
        return y.reshape(*index.shape, self.shape[1])

    def check_values(self) -> None:
        out, offsets, columns = self.shape[0], self.offsets.long(), self.columns.long()
        steps = offsets.diff()
        if offsets[0] != 0 or offsets[-1] != self.values.shape[0] or (steps < 0).any():
            raise Refused(f"Sparse: offsets must ascend from 0 to {self.values.shape[0]}; is the file damaged?")
        check_range("Sparse", "columns", columns, self.shape[1])
        place = torch.arange(out, device=self.device).repeat_interleave(steps) * self.shape[1] + columns
        if (place.diff() <= 0).any():
            raise Refused("Sparse: columns must ascend within each row, without repetition; sort them")
