"""N:M sparsity: n of every m neighbours in a row are kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.ops.native.semisparse import SEMISPARSE
from eckart.ops.packing import pack, row_bytes, unpack
from eckart.structures._checks import float_leaf, size_option
from eckart.structures._fused import part
from eckart.structures.base import StructuredMatrix, structure


def _groups(x: Tensor, size: int) -> Tensor:
    return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)


@structure("semisparse")
class SemiSparse(StructuredMatrix):
    """N:M sparse along the input: of every `m` neighbours in a row `n` are stored, and where they stand.

    A position takes ceil(log2 m) bits, at least 2, so a 2:4 matrix in 16 bits is 9/16 of the dense one. Where `size`
    is no multiple of m the last group reaches beyond the matrix; what is stored for columns out there is ignored.
    Compiled products (`eckart.native()`) have 4, 8 and 16 neighbours; otherwise W is unpacked for the call.

    Args:
        values: (out, n * ceil(size / m)), floating point.
        positions: (out, bytes), uint8: for each value its place in its group, ascending, packed by `packing.pack`.
        n: values kept of each group.
        m: columns in a group, 2 to 256.
        size: number of columns, in.
    """

    values: nn.Parameter
    positions: Tensor

    def __init__(self, values: Tensor, positions: Tensor, *, n: int, m: int, size: int) -> None:
        _check_pattern(n, m)
        size_option("SemiSparse", "size", size)
        out, kept = float_leaf("SemiSparse", "values", values, 2).shape
        self.n, self.m, self.groups, self.bits = n, m, -(-size // m), _position_bits(m)
        expected = (out, row_bytes(n * self.groups, self.bits))
        if kept != n * self.groups:
            raise Refused(f"SemiSparse: {n}:{m} of {size} columns keeps {n * self.groups} values a row, got {kept}")
        if not isinstance(positions, Tensor) or positions.dtype != torch.uint8 or tuple(positions.shape) != expected:
            got = f"{positions.dtype} of shape {tuple(positions.shape)}" if isinstance(positions, Tensor) else positions
            raise Refused(f"SemiSparse: positions must be torch.uint8 of shape {expected}, got {got}")
        super().__init__((out, size))
        self.leaf("values", values)
        self.leaf("positions", positions)
        self._product = Product(SEMISPARSE)

    @classmethod
    def from_dense(cls, weight: Tensor, n: int, m: int, score: Tensor | None = None) -> SemiSparse:
        """Keeps n of every m neighbours in each row of `weight` (out, in).

        Args:
            weight: (out, in).
            n: how many are kept.
            m: of how many.
            score: (out, in), none negative: those with the largest are kept; None for the magnitudes.
        """
        _check_pattern(n, m)
        weight = float_leaf("SemiSparse", "weight", weight, 2).detach()
        size = weight.shape[1]
        groups = _groups(F.pad(weight, (0, -size % m)), m)
        score = weight.abs() if score is None else score
        place = _groups(F.pad(score, (0, -size % m), value=-1.0), m).topk(n, -1).indices.sort(-1).values
        positions = pack(place.flatten(1).to(torch.uint8), _position_bits(m))
        return cls(groups.gather(2, place).flatten(1), positions, n=n, m=m, size=size)

    def options(self) -> dict[str, int]:
        return {"n": self.n, "m": self.m, "size": self.shape[1]}

    def forward(self, x: Tensor) -> Tensor:
        leaves = self._parameters["values"], self._buffers["positions"]
        y = self._product(x, leaves, (self.n, self.m, self.shape[1]))
        return F.linear(x, self.to_dense()) if y is None else y

    def recipe(self) -> Recipe:
        return ((part(self, SEMISPARSE, ("values", "positions"), (self.n, self.m, self.shape[1])),),)

    def to_dense(self) -> Tensor:
        return self._unpack(self.values, self.positions)

    def rows(self, index: Tensor) -> Tensor:
        flat = index.reshape(-1).long()
        return self._unpack(self.values[flat], self.positions[flat]).reshape(*index.shape, self.shape[1])

    def _unpack(self, values: Tensor, positions: Tensor) -> Tensor:
        start = torch.arange(0, self.groups * self.m, self.m, device=values.device).repeat_interleave(self.n)
        columns = unpack(positions, self.bits, self.n * self.groups) + start
        dense = values.new_zeros(values.shape[0], self.groups * self.m).scatter_(1, columns, values)
        return dense[:, : self.shape[1]]

    def check_values(self) -> None:
        places = _groups(unpack(self.positions, self.bits, self.n * self.groups).long(), self.n)
        if (places >= self.m).any() or (places.diff(dim=-1) <= 0).any():
            raise Refused(f"SemiSparse: positions must ascend in 0..{self.m - 1} in each group; is the file damaged?")


def _position_bits(m: int) -> int:
    return max(2, (m - 1).bit_length())


def _check_pattern(n: int, m: int) -> None:
    size_option("SemiSparse", "n", n)
    if size_option("SemiSparse", "m", m, least=2) > 256 or n > m:
        raise Refused(f"SemiSparse keeps n <= m <= 256 of every m, got {n}:{m}")
