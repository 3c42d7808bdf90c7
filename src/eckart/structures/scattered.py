"""Matrices with few non-zero entries whose places move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.sparse_product import sparse_product
from eckart.structures._checks import check_range, float_leaf, index_leaf, size_option
from eckart.structures.base import StructuredMatrix, structure


@structure("scattered")
class Scattered(StructuredMatrix):
    """A matrix of which `nnz` entries are stored, each with its place, in any order; values at one place add up.

    Unlike in `Sparse`, a value stays where it is in `values` when its place changes, and so does what an optimizer
    remembers of it. The price is a sort of the rows in every product.

    Args:
        values: (nnz,), floating point.
        places: (2, nnz), integer: row and column of each value; stored in 16 bits where the shape allows it.
        out: number of rows.
        columns: number of columns, in.

    Attributes:
        watch: called in every backward pass with dloss/dW (out, in), zeros of W included; None for nothing.
    """

    values: nn.Parameter
    places: Tensor
    watch: Callable[[Tensor], None] | None

    def __init__(self, values: Tensor, places: Tensor, *, out: int, columns: int) -> None:
        size_option("Scattered", "out", out)
        size_option("Scattered", "columns", columns)
        nnz = float_leaf("Scattered", "values", values, 1).shape[0]
        places = index_leaf("Scattered", "places", places, 2, max(out, columns))
        if tuple(places.shape) != (2, nnz):
            raise Refused(f"Scattered: {nnz} values need places of shape (2, {nnz}), got {tuple(places.shape)}")
        super().__init__((out, columns))
        self.leaf("values", values)
        self.leaf("places", places)
        self.watch = None

    def options(self) -> dict[str, int]:
        return {"out": self.shape[0], "columns": self.shape[1]}

    def forward(self, x: Tensor) -> Tensor:
        out, columns = self.shape
        row, order = self.places[0].long().sort(stable=True)
        flat = x.reshape(-1, columns)
        offsets = torch.searchsorted(row, torch.arange(out + 1, device=row.device))
        column = self.places[1].long().index_select(0, order)
        y = sparse_product(self.values.index_select(0, order), column, offsets, flat).reshape(*x.shape[:-1], out)
        if self.watch is not None and y.requires_grad:
            watch, flat = self.watch, flat.detach()

            def passed(gradient: Tensor) -> None:
                watch(gradient.reshape(-1, out).T @ flat)

            y.register_hook(passed)  # type: ignore[no-untyped-call]
        return y

    def to_dense(self) -> Tensor:
        row, column = self.places.long()
        dense = self.values.new_zeros(self.shape).index_put((row, column), self.values, accumulate=True)
        if self.watch is not None and dense.requires_grad:
            dense.register_hook(self.watch)  # type: ignore[no-untyped-call]
        return dense

    def check_values(self) -> None:
        for name, index, limit in zip(("rows", "columns"), self.places.long(), self.shape, strict=True):
            check_range("Scattered", f"places of {name}", index, limit)


def slopes(gradient: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """dloss/dplace of every value by central differences: a (Z[k + 1, l] - Z[k - 1, l]) / 2, and likewise for l.

    Z is continued by its border.

    Args:
        gradient: Z (out, in), of the loss by the whole spectrum.
        values: a (nnz,).
        places: k and l, (2, nnz).
    """
    found = []
    for axis, size in enumerate(gradient.shape):
        above, below = places.clone(), places.clone()
        above[axis] = (places[axis] + 1).clamp(max=size - 1)
        below[axis] = (places[axis] - 1).clamp(min=0)
        found.append(values * (gradient[tuple(above)] - gradient[tuple(below)]) / 2)
    return torch.stack(found)
