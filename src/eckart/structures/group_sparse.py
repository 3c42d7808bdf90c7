"""Group sparsity: runs of 16 inputs of a row are kept or dropped as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.packing import grouped
from eckart.structures._checks import float_leaf
from eckart.structures._kept_groups import GROUP, KeptGroups, check_kept, empty_places, kept_places
from eckart.structures.base import structure


@structure("group-sparse")
class GroupSparse(KeptGroups):
    """A matrix of which groups of consecutive inputs in a row are stored, blocks of 1 x 16; only the values train.

    A group costs its values and a byte for its place, two where a row has more than 256 groups, and a row a byte or two
    for how many it stores: half of the groups in float32 take 0.51 of the dense bytes. Whole groups are read and
    multiplied as vectors, which makes this the sparse form that is fast at batch size one. Compiled products
    (`eckart.native()`) have groups of 16, and do not read the inputs of groups that are not stored; otherwise W is
    unpacked for the call.

    Args:
        values: (kept, group), floating point: the stored groups of the first row from left to right, of the second, ...
        places: (kept,), which group of its row each is; uint8 where a row has up to 256, else int16 (int32).
        counts: (out,), how many groups of each row are stored; uint8 up to 255, else int16 (int32).
        group: consecutive inputs of a group; the last of a row may reach beyond the matrix.
        size: number of columns, in.
    """

    values: nn.Parameter

    def __init__(self, values: Tensor, places: Tensor, counts: Tensor, *, group: int, size: int) -> None:
        kept, width = float_leaf("GroupSparse", "values", values, 2).shape
        super().__init__(kept, places, counts, group=group, size=size)
        if width != group:
            raise Refused(
                f"GroupSparse: values of groups of {group} must be of shape (kept, {group}), got {width} each"
            )
        self.leaf("values", values)
        self.leaf("places", places)
        self.leaf("counts", counts)

    @classmethod
    def from_dense(cls, weight: Tensor, kept: Tensor, group: int = GROUP) -> GroupSparse:
        """Keeps the groups of `weight` (out, in) where `kept` (out, ceil(in / group)), bool, is true."""
        weight = float_leaf("GroupSparse", "weight", weight, 2).detach()
        check_kept("GroupSparse", weight, kept, group)
        return cls(grouped(weight, group)[kept], *kept_places(kept), group=group, size=weight.shape[1])

    @classmethod
    def empty(cls, shape: Sequence[int], kept: int, dtype: torch.dtype, group: int = GROUP) -> GroupSparse:
        """A GroupSparse of that shape on the meta device: what it would cost, before it is known what is kept."""
        out, size = shape
        values = torch.empty(kept, group, dtype=dtype, device="meta")
        return cls(values, *empty_places(out, -(-size // group), kept), group=group, size=size)

    def stored(self, which: Tensor | None = None) -> Tensor:
        return self.values if which is None else self.values[which]
