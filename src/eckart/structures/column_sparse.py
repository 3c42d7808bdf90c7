"""Matrices with the same number of non-zeros in each column: the codes of a dictionary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.assembly import PIECE
from eckart.ops.native.column_sparse import BLOCKS, COLUMN_SPARSE, FOLDED
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.structures._checks import check_distinct, check_range, float_leaf, index_leaf, size_option
from eckart.structures._fused import Fused, part
from eckart.structures.base import StructuredMatrix, structure


@structure("column-sparse")
class ColumnSparse(StructuredMatrix):
    """W (size, in) with s entries stored in each column: W[rows[t, j], j] = values[t, j].

    Args:
        values: (s, in), floating point.
        places: (s, in), integer; distinct within a column; stored in 16 bits where `size` allows it.
        size: number of rows, out.
    """

    values: nn.Parameter
    places: Tensor

    def __init__(self, values: Tensor, places: Tensor, *, size: int) -> None:
        size_option("ColumnSparse", "size", size)
        s, columns = float_leaf("ColumnSparse", "values", values, 2).shape
        places = index_leaf("ColumnSparse", "places", places, 2, size)
        if places.shape != values.shape or s > size:
            raise Refused(
                f"ColumnSparse: values {tuple(values.shape)} and places {tuple(places.shape)} must have one shape, "
                f"of at most {size} rows"
            )
        super().__init__((size, columns))
        self.leaf("values", values)
        self.leaf("places", places)
        self._fused, self._product = Fused(), Product(COLUMN_SPARSE)

    @classmethod
    def from_dense(cls, weight: Tensor, s: int) -> ColumnSparse:
        """Keeps the s largest magnitudes of each column of `weight` (out, in)."""
        weight = float_leaf("ColumnSparse", "weight", weight, 2).detach()
        if not 0 < s <= weight.shape[0]:
            raise Refused(f"ColumnSparse keeps 1 to {weight.shape[0]} entries a column of this matrix, got {s}")
        place = weight.abs().topk(s, 0).indices.sort(0).values
        return cls(weight.gather(0, place), place, size=weight.shape[0])

    def options(self) -> dict[str, int]:
        return {"size": self.shape[0]}

    def forward(self, x: Tensor) -> Tensor:
        y = self._fused(self, x)
        return self._several(x) if y is None else y

    def affine(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self._fused(self, x, bias)
        return self._several(x) + bias if y is None else y

    def recipe(self) -> Recipe:
        size = self.shape[0]
        blocks = max(1, min(BLOCKS, self.values.numel() // PIECE))
        whole = (part(self, COLUMN_SPARSE, ("values", "places"), (size, blocks)),)
        return (whole,) if blocks == 1 else (whole, (part(self, FOLDED, (), (size, blocks), source=0),))

    def _several(self, x: Tensor) -> Tensor:
        """The product with several vectors."""
        leaves = self._parameters["values"], self._buffers["places"]
        if (y := self._product(x, leaves, (self.shape[0], 1))) is not None:
            return y
        batch = x.reshape(-1, self.shape[1])
        if batch.shape[0] * self.values.shape[0] > self.shape[0]:
            # The products below would take more room than W itself; a dense product is then faster too.
            return F.linear(x, self.to_dense())
        products = (batch[:, None] * self.values).flatten(1)
        # Sums of many terms are kept in float32 where the dtype is narrower.
        sums = torch.promote_types(products.dtype, torch.float32)
        y = products.new_zeros(batch.shape[0], self.shape[0], dtype=sums)
        y = y.index_add(1, self.places.flatten().long(), products.to(sums))
        return y.to(x.dtype).reshape(*x.shape[:-1], self.shape[0])

    def to_dense(self) -> Tensor:
        return self.values.new_zeros(self.shape).scatter(0, self.places.long(), self.values)

    def check_values(self) -> None:
        check_range("ColumnSparse", "places", self.places, self.shape[0])
        check_distinct("ColumnSparse", "places", self.places)
