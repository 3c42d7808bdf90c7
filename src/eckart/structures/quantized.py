"""A matrix as integer codes of a few bits and one scale for each group of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.ops.native.quantized import QUANTIZED
from eckart.ops.packing import decode, encode, grid, grouped, pack, row_bytes, unpack
from eckart.structures._checks import size_option
from eckart.structures._fused import part
from eckart.structures._quantized_leaves import check_bits, check_leaves
from eckart.structures.base import Cost, StructuredMatrix, structure


def quantized_cost(
    shape: Sequence[int], bits: int, group: int, dtype: torch.dtype, *, symmetric: bool = False, levels: int = 0
) -> Cost:
    """What a `Quantized` of shape (out, in) costs, before there are codes.

    Args:
        shape, bits, group: as of `Quantized.quantize`.
        dtype: of scales and codebook.
        symmetric: without zero-points.
        levels: of a codebook, which has no zero-points either; 0 for none.
    """
    out, columns = shape
    groups = -(-columns // min(group, columns)) if columns else 0
    zeros = 0 if symmetric or levels else min(groups, row_bytes(groups, bits))
    stored = out * (row_bytes(columns, bits) + groups * dtype.itemsize + zeros) + levels * dtype.itemsize
    return Cost(out * columns, stored, out * columns)


@structure("quantized")
class Quantized(StructuredMatrix):
    """A matrix of grid points: W[i, j] is code q[i, j] in the grid of row i and group j // group.

    Three grids: symmetric `W = s (q - 2^(bits-1))`; affine `W = s (q - z)`, with zeros; codebook `W = s codebook[q]`.
    The last group is shorter where `group` does not divide the number of columns. Scales and codebook can train;
    codes and zero-points cannot. Zero-points are stored in `bits` bits each, packed as codes are, where that is
    smaller; files of 0.1.0 hold a byte for each.

    On a CPU and where no gradient is wanted, `forward` multiplies by the codes as they are, in compiled code (see
    `eckart.native`). Everywhere else W is formed and multiplied.

    Args:
        codes: (out, row_bytes(columns, bits)), uint8, packed by `packing.pack`.
        scales: (out, groups), floating point.
        zeros: (out, groups), uint8 zero-points of an affine grid, or None; on the meta device, what a file of 0.1.0
            holds.
        codebook: (levels,), floating point, at most 2^bits levels, or None.
        packed_zeros: (out, row_bytes(groups, bits)), uint8, zero-points packed by `packing.pack`, in their place.
        bits: bits of a code, 2 to 8.
        group: consecutive inputs that share a scale; all of them where it exceeds `columns`.
        columns: number of inputs.

    Raises:
        Refused: shapes or dtypes that do not fit each other.
    """

    codes: Tensor
    scales: nn.Parameter
    codebook: nn.Parameter | None

    def __init__(
        self,
        codes: Tensor,
        scales: Tensor,
        zeros: Tensor | None = None,
        codebook: Tensor | None = None,
        packed_zeros: Tensor | None = None,
        *,
        bits: int,
        group: int,
        columns: int,
    ) -> None:
        group, columns = check_leaves(codes, scales, zeros, codebook, packed_zeros, (bits, group, columns))
        super().__init__((codes.shape[0], columns))
        self.bits, self.group, self.columns = bits, group, columns
        self.leaf("codes", codes)
        self.leaf("scales", scales)
        if zeros is not None and not zeros.is_meta and _packing_pays(zeros, bits):
            packed_zeros, zeros = pack(zeros, bits), None
        # Not by register_buffer, for which the property below takes the name.
        self._buffers["zeros"] = zeros
        self.register_buffer("packed_zeros", packed_zeros)
        self.register_parameter("codebook", None)
        if codebook is not None:
            self.leaf("codebook", codebook)
        self._product = Product(QUANTIZED)

    @classmethod
    def quantize(
        cls,
        weight: Tensor,
        bits: int,
        group: int,
        *,
        symmetric: bool = False,
        codebook: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Quantized:
        """Rounds every entry of `weight` to the nearest point of the smallest grid that covers its group.

        Args:
            weight: (out, in), floating point.
            bits: 2 to 8.
            group: inputs that share a scale; `in` or more for one scale a row.
            symmetric: zero-point fixed at the middle code instead of stored.
            codebook: (levels,), strictly ascending from below zero to above, e.g. `packing.normal_float(4)`.
            dtype: of scales and codebook; that of `weight` by default.

        Raises:
            Refused: weight is no finite matrix, or the codebook is not ascending around zero.
        """
        check_bits(bits)
        weight = finite_matrix(weight)
        dtype = dtype or weight.dtype
        if codebook is not None:
            codebook = codebook.to(weight.device, dtype)
            if not (codebook[0] < 0 < codebook[-1] and (codebook.diff() > 0).all()):
                raise Refused(f"a codebook ascends strictly from below zero to above, got {codebook.tolist()}")
        columns = weight.shape[1]
        group = min(size_option("Quantized", "group", group), columns)
        exact = torch.promote_types(weight.dtype, torch.float32)
        # A short last group is filled up with zeros, which every grid covers anyway.
        groups = grouped(weight.to(exact), group)
        scales, zeros = grid(groups, bits, dtype, symmetric, codebook)
        codes = encode(groups, scales[..., None], _at_groups(zeros), bits, codebook).view(len(weight), -1)[:, :columns]
        return cls(pack(codes, bits), scales, zeros, codebook, bits=bits, group=group, columns=columns)

    def options(self) -> dict[str, Any]:
        return {"bits": self.bits, "group": self.group, "columns": self.columns}

    @property
    def zeros(self) -> Tensor | None:
        """The zero-points of an affine grid, (out, groups), uint8; None of other grids."""
        packed: Tensor | None = self._buffers["packed_zeros"]
        return self._buffers["zeros"] if packed is None else unpack(packed, self.bits, self.scales.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        y = self._product(x, self.in_memory(), (self.bits, self.group, self.columns))
        if y is not None:
            return y
        dtype = torch.promote_types(x.dtype, self.scales.dtype)
        return F.linear(x, self._decoded(self.codes, self.scales.to(dtype), self.zeros).to(x.dtype))

    def recipe(self) -> Recipe:
        names = ("codes", "scales", "zeros", "codebook", "packed_zeros")
        return ((part(self, QUANTIZED, names, (self.bits, self.group, self.columns)),),)

    def in_memory(self) -> tuple[Tensor | None, ...]:
        """Codes, scales, zero-points, codebook and packed zero-points, as `ops.native.quantized` takes them."""
        # From the registries: five attributes take as long as a small product.
        floats, codes = self._parameters, self._buffers
        return codes["codes"], floats["scales"], codes["zeros"], floats["codebook"], codes["packed_zeros"]

    def to_dense(self) -> Tensor:
        return self._decoded(self.codes, self.scales, self.zeros)

    def rows(self, index: Tensor) -> Tensor:
        flat = index.flatten()
        zeros = self.zeros
        zeros = None if zeros is None else zeros[flat]
        return self._decoded(self.codes[flat], self.scales[flat], zeros).view(*index.shape, self.columns)

    def unpacked(self) -> Tensor:
        """The codes, (out, in), uint8."""
        return unpack(self.codes, self.bits, self.columns)

    def cost(self) -> Cost:
        out, columns = self.shape
        size = sum(t.numel() * t.element_size() for t in self.leaves().values())
        return Cost(out * columns, size, out * columns)

    def check_values(self) -> None:
        """Raises Refused for scales that are not finite, or codes and zero-points outside their grid."""
        if not torch.isfinite(self.scales).all():
            raise Refused("Quantized: scales have NaN or Inf entries")
        zeros = self.zeros
        if zeros is not None and (worst := int(zeros.max())) >= 1 << self.bits:
            raise Refused(f"Quantized: zero-point {worst} does not fit {self.bits} bits")
        if self.codebook is not None:
            if not torch.isfinite(self.codebook).all():
                raise Refused("Quantized: codebook has NaN or Inf entries")
            if (worst := int(self.unpacked().max())) >= len(self.codebook):
                raise Refused(f"Quantized: code {worst} is outside a codebook of {len(self.codebook)} levels")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.bits} bits, groups of {self.group}"

    def _decoded(self, packed: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        codes = unpack(packed, self.bits, self.columns)
        values = decode(grouped(codes, self.group), scales[..., None], _at_groups(zeros), self.bits, self.codebook)
        return values.flatten(-2)[:, : self.columns]


def finite_matrix(weight: Tensor) -> Tensor:
    """`weight` detached; Refused where it is no floating-point matrix or has NaN or Inf entries."""
    if weight.ndim != 2 or not weight.is_floating_point():
        raise Refused(f"weight must be a floating-point matrix, got {weight.dtype} of shape {tuple(weight.shape)}")
    # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
    if not (torch.isfinite(weight.detach().sum()) or torch.isfinite(weight).all()):
        bad = int((~torch.isfinite(weight)).sum())
        raise Refused(f"weight of shape {tuple(weight.shape)} has {bad} NaN or Inf entries")
    return weight.detach()


def _packing_pays(zeros: Tensor, bits: int) -> bool:
    """Whether zero-points take fewer bytes in `bits` bits each, and fit them; what does not, `check_values` names."""
    groups = zeros.shape[1]
    return zeros.numel() > 0 and row_bytes(groups, bits) < groups and int(zeros.max()) < 1 << bits


def _at_groups(zeros: Tensor | None) -> Tensor | None:
    return None if zeros is None else zeros[..., None]
