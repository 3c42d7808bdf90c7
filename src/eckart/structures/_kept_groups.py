"""What matrices that keep or drop whole groups of inputs share: which groups are kept, and how they are spread out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.errors import Refused
from eckart.ops.native.group_sparse import GROUP_SPARSE
from eckart.ops.native.products import Product
from eckart.ops.native.programs import Recipe
from eckart.structures._checks import index_dtype, size_option
from eckart.structures._fused import part
from eckart.structures.base import StructuredMatrix

GROUP = 16
"""Inputs of a group: as many floats as a cache line of 64 bytes holds, and two or one of the widest registers."""


class KeptGroups(StructuredMatrix):
    """W (out, in) whose rows are cut into groups of consecutive inputs, of which some are stored, row after row.

    The last group of a row reaches beyond the matrix where `group` does not divide `size`; what is stored for columns
    out there is ignored. `stored` says what the groups hold.

    Attributes:
        group: inputs of a group.
        groups: how many there are in a row, ceil(size / group).
        places: (kept,), of `place_dtype`: each group's position in its row, ascending within the row.
        counts: (out,), of `count_dtype`: how many groups of each row are stored.
    """

    places: Tensor
    counts: Tensor

    def __init__(self, kept: int, places: Tensor, counts: Tensor, *, group: int, size: int) -> None:
        owner = type(self).__name__
        self_groups = -(-size_option(owner, "size", size) // size_option(owner, "group", group))
        _check(owner, "places", places, place_dtype(self_groups), kept)
        _check(owner, "counts", counts, count_dtype(self_groups), None)
        if kept > counts.shape[0] * self_groups:
            raise Refused(f"{owner}: {kept} groups do not fit {counts.shape[0]} rows of {self_groups}")
        super().__init__((counts.shape[0], size))
        self.group, self.groups = group, self_groups
        self._product = Product(GROUP_SPARSE)

    def options(self) -> dict[str, Any]:
        return {"group": self.group, "size": self.shape[1]}

    def stored(self, which: Tensor | None = None) -> Tensor:
        """The stored groups (kept, group) in the structure's dtype; of those `which` (k,) alone if that is given."""
        raise NotImplementedError(f"{type(self).__name__} does not define stored")

    def forward(self, x: Tensor) -> Tensor:
        floats, codes = self._parameters, self._buffers
        names = ("values", "codes", "scales", "places", "counts")
        leaves = [floats.get(name, codes.get(name)) for name in names]
        y = self._product(x, leaves, (self.group, self.shape[1], getattr(self, "bits", 0)))
        return F.linear(x, self.to_dense()) if y is None else y

    def recipe(self) -> Recipe:
        options = (self.group, self.shape[1], getattr(self, "bits", 0))
        return ((part(self, GROUP_SPARSE, ("values", "codes", "scales", "places", "counts"), options),),)

    def to_dense(self) -> Tensor:
        row = torch.arange(self.shape[0], device=self.device)
        return self._spread(self.stored(), row.repeat_interleave(self.counts.long()), self.places, self.shape[0])

    def rows(self, index: Tensor) -> Tensor:
        flat, count = index.reshape(-1).long(), self.counts.long()
        wanted = count[flat]
        row = torch.arange(len(flat), device=self.device).repeat_interleave(wanted)
        # of each wanted group: where its row starts, and its rank in it
        start, rank = count.cumsum(0) - count, torch.arange(len(row), device=self.device)
        which = start[flat][row] + rank - (wanted.cumsum(0) - wanted)[row]
        return self._spread(self.stored(which), row, self.places[which], len(flat)).view(*index.shape, self.shape[1])

    def check_values(self) -> None:
        owner, kept = type(self).__name__, self.places.shape[0]
        count, places = self.counts.long(), self.places.long()
        if (count < 0).any() or int(count.sum()) != kept:
            raise Refused(f"{owner}: {kept} groups but counts of {int(count.sum())}; is the file damaged?")
        if ((places < 0) | (places >= self.groups)).any():
            raise Refused(f"{owner}: places must lie in 0..{self.groups - 1}; is the file damaged?")
        row = torch.arange(len(count), device=self.device).repeat_interleave(count)
        if ((row * self.groups + places).diff() <= 0).any():
            raise Refused(f"{owner}: places must ascend within each row, without repetition; is the file damaged?")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.places.shape[0]} groups of {self.group}"

    def _spread(self, stored: Tensor, row: Tensor, places: Tensor, rows: int) -> Tensor:
        """Rows (rows, in) with the groups `stored` (k, group) at `places` (k,) of their `row` (k,), zeros elsewhere."""
        empty = stored.new_zeros(rows * self.groups, self.group)
        return empty.index_copy(0, row * self.groups + places, stored).view(rows, self.groups * self.group)[
            :, : self.shape[1]
        ]


def place_dtype(groups: int) -> torch.dtype:
    """The smallest dtype of a group's position among so many.

    >>> place_dtype(256), place_dtype(257)
    (torch.uint8, torch.int16)
    """
    return torch.uint8 if groups <= 256 else index_dtype(groups)


def count_dtype(groups: int) -> torch.dtype:
    """The smallest dtype of a number of groups up to so many.

    >>> count_dtype(255), count_dtype(256)
    (torch.uint8, torch.int16)
    """
    return torch.uint8 if groups <= 255 else index_dtype(groups)


def kept_places(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Places and counts, as they are stored, of the groups that are kept: (out, groups), bool."""
    groups = kept.shape[1]
    return kept.nonzero()[:, 1].to(place_dtype(groups)), kept.sum(1).to(count_dtype(groups))


def empty_places(out: int, groups: int, kept: int) -> tuple[Tensor, Tensor]:
    """Places and counts of `kept` groups of a matrix, on the meta device."""
    return (
        torch.empty(kept, dtype=place_dtype(groups), device="meta"),
        torch.empty(out, dtype=count_dtype(groups), device="meta"),
    )


def check_kept(owner: str, weight: Tensor, kept: Tensor, group: int) -> None:
    """Refused unless `kept` says of each group of each row of `weight` (out, in) whether it is stored."""
    expected = (weight.shape[0], -(-weight.shape[1] // size_option(owner, "group", group)))
    if kept.dtype != torch.bool or tuple(kept.shape) != expected:
        raise Refused(
            f"{owner}: what is kept of groups of {group} must be torch.bool of shape {expected}, got {kept.dtype} of "
            f"shape {tuple(kept.shape)}"
        )


def _check(owner: str, name: str, index: Tensor, dtype: torch.dtype, length: int | None) -> None:
    if not isinstance(index, Tensor) or index.dtype != dtype or index.ndim != 1 or length not in (None, len(index)):
        got = f"{index.dtype} of shape {tuple(index.shape)}" if isinstance(index, Tensor) else index
        raise Refused(f"{owner}: {name} must be {dtype} of shape ({length or 'out'},), got {got}")
