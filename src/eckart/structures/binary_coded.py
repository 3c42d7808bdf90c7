"""A matrix as planes of signs, each with a scale for every group of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.binary_planes import pack_planes, plane_bytes, rows_of_tiles, summed, tiled, unpack_planes, untiled
from eckart.ops.native.binary_coded import BINARY_CODED, MOST_PLANES, fitting_group
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.structures._checks import float_leaf, size_option
from eckart.structures._fused import part
from eckart.structures.base import Cost, StructuredMatrix, structure


@structure("binary-coded")
class BinaryCoded(StructuredMatrix):
    """A sum of planes of signs: W[i, j] = sum_p a[i, g, p] B_p[i, j] + z[i, g], B_p[i, j] in {-1, 1}, g = j // group.

    Two planes have four levels in each group of a row, `+-a_0 +-a_1`, which lie on no grid; and the points of any grid
    of q bits are such sums, with a_p = s 2^(p-1) and an offset z. Scales and offsets can train; signs cannot.

    On a CPU and where no gradient is wanted, `forward` adds up signed sums of four inputs, out of tables that are made
    for the call, in float32 and compiled code (see `eckart.native`). Everywhere else W is formed and multiplied.

    All three tensors are `ops.binary_planes.tiled`, so that the product reads them from front to back; `from_planes`
    sees to that.

    Args:
        codes: (out, planes * ceil(columns / 8)), uint8, as `ops.binary_planes.pack_planes` packs signs.
        scales: (out, groups * planes), floating point; 1 to 8 planes.
        offsets: (out, groups), floating point, or None.
        group: consecutive inputs that share scales, a multiple of 16; or all of them.
        columns: number of inputs.

    Raises:
        Refused: shapes or dtypes that do not fit each other.
    """

    codes: Tensor
    scales: nn.Parameter
    offsets: nn.Parameter | None

    def __init__(
        self, codes: Tensor, scales: Tensor, offsets: Tensor | None = None, *, group: int, columns: int
    ) -> None:
        columns = size_option("BinaryCoded", "columns", columns)
        group = min(size_option("BinaryCoded", "group", group), columns)
        if not fitting_group(group, columns):
            raise Refused(f"BinaryCoded: group must be a multiple of 16, or all {columns} columns, got {group}")
        width = plane_bytes(columns)
        most = MOST_PLANES * width
        if not isinstance(codes, Tensor) or codes.dtype != torch.uint8 or codes.ndim != 2:
            got = f"{codes.dtype} of shape {tuple(codes.shape)}" if isinstance(codes, Tensor) else codes
            raise Refused(f"BinaryCoded needs uint8 codes of shape (out, bytes), got {got}; use from_planes")
        out, planes = codes.shape[0], codes.shape[1] // width
        if codes.shape[1] not in range(width, most + 1, width):
            raise Refused(
                f"BinaryCoded needs {width} bytes a row for each of 1 to {MOST_PLANES} planes of {columns} columns, "
                f"got codes of shape {tuple(codes.shape)}"
            )
        groups = -(-columns // group)
        for name, values, number in (("scales", scales, groups * planes), ("offsets", offsets, groups)):
            if values is not None and tuple(float_leaf("BinaryCoded", name, values, 2).shape) != (out, number):
                raise Refused(f"BinaryCoded needs {name} of shape {(out, number)}, got {tuple(values.shape)}")
        super().__init__((out, columns))
        self.planes, self.group, self.columns = planes, group, columns
        self.leaf("codes", codes)
        self.leaf("scales", scales)
        self.register_parameter("offsets", None)
        if offsets is not None:
            self.leaf("offsets", offsets)
        self._product = Product(BINARY_CODED)

    @classmethod
    def from_planes(cls, signs: Tensor, scales: Tensor, offsets: Tensor | None = None, *, group: int) -> BinaryCoded:
        """From what is not tiled.

        Args:
            signs: B (planes, out, in), bool, true for +1.
            scales: a (out, groups, planes).
            offsets: z (out, groups), or None.
            group: as above.
        """
        if not isinstance(signs, Tensor) or signs.dtype != torch.bool or signs.ndim != 3:
            got = f"{signs.dtype} of shape {tuple(signs.shape)}" if isinstance(signs, Tensor) else signs
            raise Refused(f"BinaryCoded: signs must be torch.bool of shape (planes, out, in), got {got}")
        columns = signs.shape[2]
        groups = -(-columns // min(size_option("BinaryCoded", "group", group), columns))
        wanted = (signs.shape[1], groups, signs.shape[0])
        if tuple(float_leaf("BinaryCoded", "scales", scales, 3).shape) != wanted:
            raise Refused(f"BinaryCoded needs scales of shape {wanted}, got {tuple(scales.shape)}")
        kept = None if offsets is None else tiled(float_leaf("BinaryCoded", "offsets", offsets, 2))
        return cls(pack_planes(signs), tiled(scales.flatten(1)), kept, group=group, columns=columns)

    @classmethod
    def empty(
        cls, shape: Sequence[int], planes: int, group: int, dtype: torch.dtype, *, offsets: bool = False
    ) -> BinaryCoded:
        """A BinaryCoded of that shape on the meta device: what it would cost, before there are signs."""
        out, columns = shape
        groups = -(-columns // size_option("BinaryCoded", "group", group))
        return cls(
            torch.empty(out, planes * plane_bytes(columns), dtype=torch.uint8, device="meta"),
            torch.empty(out, groups * planes, dtype=dtype, device="meta"),
            torch.empty(out, groups, dtype=dtype, device="meta") if offsets else None,
            group=group,
            columns=columns,
        )

    def options(self) -> dict[str, Any]:
        return {"group": self.group, "columns": self.columns}

    def forward(self, x: Tensor) -> Tensor:
        y = self._product(x, self.in_memory(), (self.group, self.columns, self.planes))
        if y is not None:
            return y
        dtype = torch.promote_types(x.dtype, self.scales.dtype)
        offsets = None if self.offsets is None else untiled(self.offsets.to(dtype))
        return F.linear(x, summed(self.signs(), untiled(self.scales.to(dtype)), offsets, self.group).to(x.dtype))

    def recipe(self) -> Recipe:
        options = (self.group, self.columns, self.planes)
        return ((part(self, BINARY_CODED, ("codes", "scales", "offsets"), options),),)

    def in_memory(self) -> tuple[Tensor | None, ...]:
        """Codes, scales and offsets, as `ops.native.binary_coded` takes them."""
        return self._buffers["codes"], self._parameters["scales"], self._parameters["offsets"]

    def to_dense(self) -> Tensor:
        offsets = None if self.offsets is None else untiled(self.offsets)
        return summed(self.signs(), untiled(self.scales), offsets, self.group)

    def rows(self, index: Tensor) -> Tensor:
        flat = index.flatten().long()
        signs = unpack_planes(rows_of_tiles(self.codes, flat), self.planes, self.columns)
        offsets = None if self.offsets is None else rows_of_tiles(self.offsets, flat)
        found = summed(signs, rows_of_tiles(self.scales, flat), offsets, self.group)
        return found.view(*index.shape, self.columns)

    def signs(self) -> Tensor:
        """(planes, out, in), uint8: 1 for +1, 0 for -1."""
        return unpack_planes(untiled(self.codes), self.planes, self.columns)

    def cost(self) -> Cost:
        out, columns = self.shape
        size = sum(t.numel() * t.element_size() for t in self.leaves().values())
        return Cost(out * columns, size, out * columns)

    def check_values(self) -> None:
        """Raises Refused for scales or offsets that are not finite, or signs of columns that there are not."""
        for name in ("scales", "offsets"):
            values = self._parameters[name]
            if values is not None and not torch.isfinite(values).all():
                raise Refused(f"BinaryCoded: {name} have NaN or Inf entries")
        whole = unpack_planes(untiled(self.codes), self.planes, 8 * plane_bytes(self.columns))
        if whole[..., self.columns :].any():
            raise Refused(f"BinaryCoded: the codes name columns beyond {self.columns}; is the file damaged?")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.planes} planes, groups of {self.group}"
