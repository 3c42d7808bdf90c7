"""Tensors that end or begin where memory does: whoever touches a byte outside of them does not live on."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LIBC: Any = ctypes.CDLL(None, use_errno=True)
_NO_ACCESS = 0
FILLED = 255
"""What every byte around a tensor is: NaN in each float type, -1 in each integer with a sign."""
NEAR = 1 << 12
"""Bytes that are around."""


def guarded(tensor: Tensor) -> Tensor:
    """A copy of a tensor whose last byte is followed by a page that must not be touched."""
    return Memory(1, tensor.numel() * tensor.element_size()).put(tensor, at_end=True)


class Memory:
    """Places for tensors with a page before and a page behind each that must not be touched.

    Args:
        places: how many tensors there is room for.
        size: bytes of the largest.
    """

    def __init__(self, places: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = max(1, -(-size // page)) * page
        self._step = self.size + page
        memory = mmap.mmap(-1, places * self._step + page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for place in range(places + 1):
            if _LIBC.mprotect(ctypes.c_void_p(start + place * self._step), ctypes.c_size_t(page), _NO_ACCESS):
                raise OSError(ctypes.get_errno(), "mprotect")
        self._numbers = np.frombuffer(memory, np.uint8)
        self._map, self._filled = memory, bytes((FILLED,)) * NEAR
        self._taken: list[tuple[int, int, int, int]] = []
        self._places = places

    def clear(self) -> None:
        """Takes all tensors away."""
        self._taken.clear()

    def put(self, tensor: Tensor, at_end: bool) -> Tensor:
        """A copy that ends where its place does, or begins there; what is around it in its place is `FILLED`."""
        found = self.room(tensor.numel(), tensor.dtype, at_end)
        return found.copy_(tensor.detach().flatten()).view(tensor.shape)

    def room(self, count: int, dtype: torch.dtype, at_end: bool) -> Tensor:
        """(count,) numbers whose bytes are `FILLED`, as `put` places them."""
        place, size = len(self._taken), count * dtype.itemsize
        if place == self._places or size > self.size:
            raise ValueError(f"no room for {size} bytes in place {place} of {self._places}, of {self.size} bytes each")
        first = mmap.PAGESIZE + place * self._step
        start = first + (self.size - size if at_end else 0)
        low, high = max(first, start - NEAR), min(first + self.size, start + size + NEAR)
        self._numbers[low:high] = FILLED
        self._taken.append((low, start, start + size, high))
        # A storage of its own: copies of a tensor may copy all of its storage.
        return (
            torch.frombuffer(self._map, dtype=dtype, count=count, offset=start)
            if count
            else torch.empty(0, dtype=dtype)
        )

    def untouched(self) -> bool:
        """Whether all that surrounds the tensors is as it was."""
        around = (part for low, start, stop, high in self._taken for part in ((low, start), (stop, high)))
        return all(self._map[low:high] == self._filled[: high - low] for low, high in around)
