"""Matrices with many zeros, one bit for each place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.masked import MASKED
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.ops.packing import bits_set, pack, row_bytes, unpack
from eckart.structures._checks import float_leaf, size_option
from eckart.structures._fused import part
from eckart.structures.base import StructuredMatrix, structure

PIECE = 1 << 20
"""Entries that are unpacked at once on a CPU, so that what is made on the way stays in its caches."""


@structure("masked")
class Masked(StructuredMatrix):
    """A matrix of which `nnz` entries are stored, row after row, and one bit for each place; only the values train.

    The places take out * ceil(in / 8) bytes, which is less than `Sparse` needs with columns of 16 bits as soon as more
    than one entry in 16 is stored. A stored value may be zero. Without compiled products (`eckart.native()`) W is
    unpacked for the call.

    Args:
        values: (nnz,), floating point: the stored entries of the first row from left to right, of the second, ...
        mask: (out, ceil(size / 8)), uint8: 1 where an entry is stored, packed by `packing.pack` with one bit.
        size: number of columns, in.
    """

    values: nn.Parameter
    mask: Tensor

    def __init__(self, values: Tensor, mask: Tensor, *, size: int) -> None:
        width = row_bytes(size_option("Masked", "size", size), 1)
        nnz = float_leaf("Masked", "values", values, 1).shape[0]
        if not isinstance(mask, Tensor) or mask.dtype != torch.uint8 or mask.ndim != 2 or mask.shape[1] != width:
            got = f"{mask.dtype} of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else mask
            raise Refused(f"Masked: mask must be torch.uint8 of shape (out, {width}), got {got}")
        if nnz > mask.shape[0] * size:
            raise Refused(f"Masked: {nnz} values do not fit a matrix of shape {(mask.shape[0], size)}")
        super().__init__((mask.shape[0], size))
        self.leaf("values", values)
        self.leaf("mask", mask)
        self._product = Product(MASKED)

    @classmethod
    def from_dense(cls, weight: Tensor, mask: Tensor) -> Masked:
        """Keeps the entries of `weight` (out, in) where `mask` (out, in), bool, is true."""
        weight = float_leaf("Masked", "weight", weight, 2).detach()
        if mask.dtype != torch.bool or mask.shape != weight.shape:
            raise Refused(
                f"Masked: the mask must be torch.bool of shape {tuple(weight.shape)}, got {mask.dtype} of shape "
                f"{tuple(mask.shape)}"
            )
        return cls(weight[mask], pack(mask.to(torch.uint8), 1), size=weight.shape[1])

    @classmethod
    def empty(cls, shape: Sequence[int], nnz: int, dtype: torch.dtype) -> Masked:
        """A Masked of that shape on the meta device: what it would cost, before it is known what is kept."""
        out, size = shape
        mask = torch.empty(out, row_bytes(size, 1), dtype=torch.uint8, device="meta")
        return cls(torch.empty(nnz, dtype=dtype, device="meta"), mask, size=size)

    def options(self) -> dict[str, int]:
        return {"size": self.shape[1]}

    def forward(self, x: Tensor) -> Tensor:
        leaves = self._parameters["values"], self._buffers["mask"]
        if (y := self._product(x, leaves, (self.shape[1],))) is not None:
            return y
        return torch.cat([F.linear(x, piece) for piece in self._pieces()], -1)

    def recipe(self) -> Recipe:
        return ((part(self, MASKED, ("values", "mask"), (self.shape[1],)),),)

    def to_dense(self) -> Tensor:
        return torch.cat(list(self._pieces()))

    def rows(self, index: Tensor) -> Tensor:
        flat = index.reshape(-1).long()
        count = bits_set(self.mask)
        places = _places(self.mask[flat], self.shape[1])
        # which value: those of the rows before, and its rank in the row
        value = (count.cumsum(0) - count)[flat, None] + places.cumsum(1) - 1
        return _spread(self.values[value[places]], places).reshape(*index.shape, self.shape[1])

    def _pieces(self) -> Iterator[Tensor]:
        """W, some rows at a time."""
        out, size = self.shape
        step = max(1, PIECE // size)
        if out <= step or self.device.type != "cpu":
            yield _spread(self.values, _places(self.mask, size))
            return
        stored = [int(count.sum()) for count in torch.split(bits_set(self.mask), step)]
        for values, mask in zip(torch.split(self.values, stored), torch.split(self.mask, step), strict=True):
            yield _spread(values, _places(mask, size))

    def check_values(self) -> None:
        stored = int(bits_set(self.mask).sum())
        if stored != self.values.shape[0]:
            raise Refused(f"Masked: {self.values.shape[0]} values but {stored} places; is the file damaged?")
        if _places(self.mask, 8 * self.mask.shape[1])[:, self.shape[1] :].any():
            raise Refused(f"Masked: the mask names columns beyond {self.shape[1]}; is the file damaged?")


def _places(mask: Tensor, columns: int) -> Tensor:
    """Where entries are stored: mask (rows, bytes) -> (rows, columns), bool."""
    return unpack(mask, 1, columns).view(torch.bool)


def _spread(values: Tensor, places: Tensor) -> Tensor:
    """The matrix with `values` (nnz,), row after row, at the `places` (rows, columns), and zeros elsewhere.

    Nothing here branches on the bits, which no processor can predict: `masked_scatter` takes ten times as long.
    """
    flat = places.flatten()
    rank = flat.cumsum(0, dtype=torch.int32 if len(flat) < 2**31 else torch.int64)
    return F.pad(values, (1, 0)).index_select(0, rank * flat).view(places.shape)
