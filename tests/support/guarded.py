"""Tensors that end where memory ends: whoever reads a byte beyond them does not live on."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import torch
from torch import Tensor

_LIBC: Any = ctypes.CDLL(None, use_errno=True)
_NO_ACCESS = 0


def guarded(tensor: Tensor) -> Tensor:
    """A copy of a tensor whose last byte is followed by a page that must not be touched."""
    page = mmap.PAGESIZE
    size = tensor.numel() * tensor.element_size()
    whole = -(-size // page) * page
    memory = mmap.mmap(-1, whole + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _LIBC.mprotect(ctypes.c_void_p(start + whole), ctypes.c_size_t(page), _NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect")
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=whole - size)
    return flat.copy_(tensor.detach().flatten()).view(tensor.shape)
