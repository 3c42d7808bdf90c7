"""Planes of signs, one bit each, in the order in which a product by tables of sixteen reads them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eckart.ops.packing import grouped

TILE = 16
"""Rows that are multiplied at once."""


def plane_bytes(columns: int) -> int:
    """Bytes of one row of one plane."""
    return -(-columns // 8)


def tiled(rows: Tensor) -> Tensor:
    """Cuts (out, k) into tiles of 16 rows, the last one shorter, and writes each column by column; the same shape.

    >>> tiled(torch.tensor([[1, 2], [3, 4], [5, 6]])).flatten().tolist()
    [1, 3, 5, 2, 4, 6]
    """
    return _by_tiles(rows, lambda part, count: part.view(-1, count, rows.shape[1]))


def untiled(rows: Tensor) -> Tensor:
    """What `tiled` made of (out, k), as it was."""
    return _by_tiles(rows, lambda part, count: part.view(-1, rows.shape[1], count))


def rows_of_tiles(rows: Tensor, index: Tensor) -> Tensor:
    """`untiled(rows)[index]` (k, columns), for index (k,), int64."""
    out, width = rows.shape
    row = torch.where(index < 0, index + out, index)
    first = row - row % TILE
    count = (out - first).clamp_max(TILE)
    place = torch.arange(width, device=rows.device)
    return rows.flatten()[(first * width + row % TILE)[:, None] + place * count[:, None]]


def pack_planes(signs: Tensor) -> Tensor:
    """Packs planes of signs; `unpack_planes` reverses it.

    Bit j of a byte is the sign of column 8 b + j, set where it is +1, so that each half of a byte is the number of a
    signed sum of four neighbours. Byte b of plane p is number `b planes + p` of its row, and rows lie in tiles.

    Args:
        signs: (planes, out, columns), bool.

    Returns:
        (out, plane_bytes(columns) * planes), uint8, `tiled`.
    """
    planes, out, columns = signs.shape
    width = plane_bytes(columns)
    bits = F.pad(signs.to(torch.uint8), (0, 8 * width - columns)).view(planes, out, width, 8)
    packed = (bits << torch.arange(8, dtype=torch.uint8, device=signs.device)).sum(-1, dtype=torch.uint8)
    return tiled(packed.permute(1, 2, 0).reshape(out, -1))


def unpack_planes(rows: Tensor, planes: int, columns: int) -> Tensor:
    """The signs (planes, k, columns), uint8 of zeros and ones, of packed rows (k, bytes) that are no longer tiled."""
    packed = rows.view(len(rows), plane_bytes(columns), planes).permute(2, 0, 1)
    bits = packed[..., None] >> torch.arange(8, dtype=torch.uint8, device=rows.device)
    return bits.bitwise_and_(1).flatten(-2)[..., :columns]


def summed(signs: Tensor, scales: Tensor, offsets: Tensor | None, group: int) -> Tensor:
    """W[i, j] = sum_p scales[i, g, p] B_p[i, j] + offsets[i, g], g = j // group and B the signs.

    Args:
        signs: (planes, k, columns), uint8: 1 for +1, 0 for -1.
        scales: (k, groups * planes), floating point.
        offsets: (k, groups), or None.
        group: columns that share scales.
    """
    by_plane = scales.view(len(scales), scales.shape[1] // len(signs), len(signs))
    total = None if offsets is None else offsets[..., None]
    for plane, bits in enumerate(signs):
        signed = grouped(bits, group).to(scales.dtype).mul_(2).sub_(1) * by_plane[..., plane, None]
        total = signed if total is None else total + signed
    assert total is not None
    return total.flatten(-2)[:, : signs.shape[-1]]


def _by_tiles(rows: Tensor, view: Callable[[Tensor, int], Tensor]) -> Tensor:
    out, width = rows.shape
    whole = out - out % TILE
    parts = [(rows[:whole], TILE), (rows[whole:], out - whole)]
    turned = [view(part, count).transpose(1, 2).contiguous().view(-1, width) for part, count in parts if len(part)]
    return turned[0] if len(turned) == 1 else torch.cat(turned)
