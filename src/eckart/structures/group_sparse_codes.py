"""Group sparsity whose stored groups are integer codes of a few bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.packing import CODE_BITS, decode, encode, grid, grouped, pack, row_bytes, unpack
from eckart.structures._checks import float_leaf, size_option
from eckart.structures._kept_groups import GROUP, KeptGroups, check_kept, empty_places, kept_places
from eckart.structures.base import Cost, structure
from eckart.structures.quantized import finite_matrix


@structure("group-sparse-codes")
class GroupSparseCodes(KeptGroups):
    """A `GroupSparse` matrix with codes for values: `W = s (q - 2^(bits-1))` in a stored group, s its own scale.

    Codes of 4 bits in groups of 16 take 8 bytes a group, its scale 2 or 4 and its place 1: at half of the groups 0.09
    of float32, 0.17 of bfloat16. Only the scales train. Compiled products (`eckart.native()`)
    have 4 bits in groups of 16; otherwise W is unpacked for the call.

    Args:
        codes: (kept, row_bytes(group, bits)), uint8: each group packed by `packing.pack`.
        scales: (kept,), floating point.
        places: as in `GroupSparse`.
        counts: as in `GroupSparse`.
        bits: bits of a code, 2 to 8.
        group: consecutive inputs of a group; the last of a row may reach beyond the matrix.
        size: number of columns, in.
    """

    codes: Tensor
    scales: nn.Parameter

    def __init__(
        self, codes: Tensor, scales: Tensor, places: Tensor, counts: Tensor, *, bits: int, group: int, size: int
    ) -> None:
        kept = float_leaf("GroupSparseCodes", "scales", scales, 1).shape[0]
        super().__init__(kept, places, counts, group=group, size=size)
        self.bits = _check_bits(bits)
        expected = (kept, row_bytes(group, bits))
        if not isinstance(codes, Tensor) or codes.dtype != torch.uint8 or tuple(codes.shape) != expected:
            got = f"{codes.dtype} of shape {tuple(codes.shape)}" if isinstance(codes, Tensor) else codes
            raise Refused(f"GroupSparseCodes: codes must be torch.uint8 of shape {expected}, got {got}")
        self.leaf("codes", codes)
        self.leaf("scales", scales)
        self.leaf("places", places)
        self.leaf("counts", counts)

    @classmethod
    def quantize(cls, weight: Tensor, kept: Tensor, bits: int, group: int = GROUP) -> GroupSparseCodes:
        """Keeps the groups of `weight` (out, in) where `kept` is true, rounded to the grid that just covers each.

        Args:
            weight: (out, in), finite; scales take its dtype.
            kept: (out, ceil(in / group)), bool.
            bits: 2 to 8.
            group: inputs of a group.
        """
        weight = finite_matrix(weight)
        check_kept("GroupSparseCodes", weight, kept, group)
        values = grouped(weight, group)[kept].to(torch.promote_types(weight.dtype, torch.float32))
        scales, _ = grid(values, _check_bits(bits), weight.dtype, symmetric=True)
        return cls.of_codes(encode(values, scales[:, None], None, bits), scales, kept, bits=bits, size=weight.shape[1])

    @classmethod
    def of_codes(cls, codes: Tensor, scales: Tensor, kept: Tensor, *, bits: int, size: int) -> GroupSparseCodes:
        """From the codes (kept, group), uint8, and scales (kept,) of the groups where `kept` (out, groups) is true."""
        return cls(pack(codes, bits), scales, *kept_places(kept), bits=bits, group=codes.shape[1], size=size)

    @classmethod
    def empty(
        cls, shape: Sequence[int], kept: int, bits: int, dtype: torch.dtype, group: int = GROUP
    ) -> GroupSparseCodes:
        """A GroupSparseCodes of that shape on the meta device: what it would cost, before it is known what is kept."""
        out, size = shape
        codes = torch.empty(kept, row_bytes(group, bits), dtype=torch.uint8, device="meta")
        scales = torch.empty(kept, dtype=dtype, device="meta")
        return cls(codes, scales, *empty_places(out, -(-size // group), kept), bits=bits, group=group, size=size)

    def options(self) -> dict[str, Any]:
        return {"bits": self.bits, **super().options()}

    def stored(self, which: Tensor | None = None) -> Tensor:
        codes, scales = (self.codes, self.scales) if which is None else (self.codes[which], self.scales[which])
        return decode(unpack(codes, self.bits, self.group), scales[:, None], None, self.bits)

    def cost(self) -> Cost:
        values = self.places.shape[0] * self.group
        return Cost(values, sum(t.numel() * t.element_size() for t in self.leaves().values()), values)

    def check_values(self) -> None:
        super().check_values()
        if not torch.isfinite(self.scales).all():
            raise Refused("GroupSparseCodes: scales have NaN or Inf entries")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.bits} bits"


def _check_bits(bits: int) -> int:
    if size_option("GroupSparseCodes", "bits", bits) not in CODE_BITS:
        raise Refused(f"GroupSparseCodes: bits must be 2 to 8, got {bits}")
    return bits
