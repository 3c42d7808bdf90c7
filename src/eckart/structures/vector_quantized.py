"""A matrix as codes for short vectors: entries of one input in a few rows, out of one codebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.ops.native.vector_quantized import LENGTHS, VECTOR_QUANTIZED
from eckart.ops.packing import pack, row_bytes, unpack
from eckart.ops.vector_codebooks import decode_vectors
from eckart.structures._checks import float_leaf, size_option
from eckart.structures._fused import part
from eckart.structures.base import Cost, StructuredMatrix, structure


@structure("vector-quantized")
class VectorQuantized(StructuredMatrix):
    """A matrix of points out of a codebook of vectors: W[i, j] = s[j // group, i] c[q[i // d, j], i % d].

    A code of b bits stands for d rows of one input, at b / d bits an entry; codes of all vectors are better than codes
    of all entries, as the vectors of a codebook go where those of the matrix are. Scales and codebook can train; codes
    cannot.

    On a CPU and where no gradient is wanted, `forward` multiplies by the codes as they are, in compiled code (see
    `eckart.native`). Everywhere else W is formed and multiplied.

    Args:
        codes: (ceil(out / d), row_bytes(columns, b)), uint8, packed by `packing.pack`; see `from_codes`.
        scales: s (groups, out), floating point; a product reads those of neighbouring rows side by side.
        codebook: c (2^b, d), floating point, d one of 1, 2, 4, b of 2 to 8.
        group: consecutive inputs that share a scale; all of them where it exceeds `columns`.
        columns: number of inputs.

    Raises:
        Refused: shapes or dtypes that do not fit each other.
    """

    codes: Tensor
    scales: nn.Parameter
    codebook: nn.Parameter

    def __init__(self, codes: Tensor, scales: Tensor, codebook: Tensor, *, group: int, columns: int) -> None:
        columns = size_option("VectorQuantized", "columns", columns)
        group = min(size_option("VectorQuantized", "group", group), columns)
        entries, length = float_leaf("VectorQuantized", "codebook", codebook, 2).shape
        bits = max(entries, 1).bit_length() - 1
        if entries != 1 << bits or bits not in range(2, 9) or length not in LENGTHS:
            raise Refused(
                f"VectorQuantized needs a codebook of 4, 8, ... or 256 vectors of {', '.join(map(str, LENGTHS))} "
                f"entries, got {tuple(codebook.shape)}"
            )
        out = float_leaf("VectorQuantized", "scales", scales, 2).shape[1]
        groups = -(-columns // group)
        if scales.shape[0] != groups:
            raise Refused(f"VectorQuantized needs scales of shape {(groups, out)}, got {tuple(scales.shape)}")
        wanted = (-(-out // length), row_bytes(columns, bits))
        if not isinstance(codes, Tensor) or codes.dtype != torch.uint8 or tuple(codes.shape) != wanted:
            got = f"{codes.dtype} of shape {tuple(codes.shape)}" if isinstance(codes, Tensor) else codes
            raise Refused(f"VectorQuantized needs uint8 codes of shape {wanted}, got {got}; use from_codes")
        super().__init__((out, columns))
        self.bits, self.length, self.group, self.columns = bits, length, group, columns
        self.leaf("codes", codes)
        self.leaf("scales", scales)
        self.leaf("codebook", codebook)
        self._product = Product(VECTOR_QUANTIZED)

    @classmethod
    def from_codes(cls, codes: Tensor, scales: Tensor, codebook: Tensor, *, group: int) -> VectorQuantized:
        """From codes (ceil(out / d), in), uint8, that are not packed, and scales (out, groups); the rest as above."""
        bits = max(len(codebook), 1).bit_length() - 1
        if codes.dtype != torch.uint8 or codes.ndim != 2 or int(codes.max()) >= len(codebook):
            raise Refused(
                f"VectorQuantized: codes must be torch.uint8 of shape (vectors, in), each below {len(codebook)}, got "
                f"{codes.dtype} of shape {tuple(codes.shape)}"
            )
        scales = float_leaf("VectorQuantized", "scales", scales, 2).T.contiguous()
        return cls(pack(codes, bits), scales, codebook, group=group, columns=codes.shape[1])

    @classmethod
    def empty(cls, shape: Sequence[int], bits: int, length: int, group: int, dtype: torch.dtype) -> VectorQuantized:
        """A VectorQuantized of that shape on the meta device: what it would cost, before there are codes."""
        out, columns = shape
        groups = -(-columns // size_option("VectorQuantized", "group", group))
        return cls(
            torch.empty(-(-out // length), row_bytes(columns, bits), dtype=torch.uint8, device="meta"),
            torch.empty(groups, out, dtype=dtype, device="meta"),
            torch.empty(1 << bits, length, dtype=dtype, device="meta"),
            group=group,
            columns=columns,
        )

    def options(self) -> dict[str, Any]:
        return {"group": self.group, "columns": self.columns}

    def forward(self, x: Tensor) -> Tensor:
        y = self._product(x, self.in_memory(), self._numbers())
        if y is not None:
            return y
        dtype = torch.promote_types(x.dtype, self.scales.dtype)
        return F.linear(x, self._decoded(self.scales.to(dtype)).to(x.dtype))

    def recipe(self) -> Recipe:
        return ((part(self, VECTOR_QUANTIZED, ("codes", "scales", "codebook"), self._numbers()),),)

    def in_memory(self) -> tuple[Tensor | None, ...]:
        """Codes, scales and codebook, as `ops.native.vector_quantized` takes them."""
        return self._buffers["codes"], self._parameters["scales"], self._parameters["codebook"]

    def to_dense(self) -> Tensor:
        return self._decoded(self.scales)

    def rows(self, index: Tensor) -> Tensor:
        flat = index.flatten().long()
        row = torch.where(flat < 0, flat + self.shape[0], flat)
        codes = unpack(self.codes[row // self.length], self.bits, self.columns)
        entries = self.codebook[codes.int(), (row % self.length)[:, None]]
        scales = self.scales[:, row].T.repeat_interleave(self.group, 1)[:, : self.columns]
        return (entries * scales).view(*index.shape, self.columns)

    def unpacked(self) -> Tensor:
        """The codes, (ceil(out / d), in), uint8."""
        return unpack(self.codes, self.bits, self.columns)

    def cost(self) -> Cost:
        out, columns = self.shape
        size = sum(t.numel() * t.element_size() for t in self.leaves().values())
        return Cost(out * columns, size, out * columns)

    def check_values(self) -> None:
        """Raises Refused for scales or a codebook that are not finite; every code stands for a vector."""
        for name, values in (("scales", self.scales), ("codebook", self.codebook)):
            if not torch.isfinite(values).all():
                raise Refused(f"VectorQuantized: {name} has NaN or Inf entries")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.bits} bits for {self.length} rows, groups of {self.group}"

    def _numbers(self) -> tuple[int, int, int, int]:
        return self.bits, self.length, self.group, self.columns

    def _decoded(self, scales: Tensor) -> Tensor:
        return decode_vectors(self.unpacked(), scales.T, self.codebook, self.group)
