"""What a layout is to Python: how the tensors of a matrix lie in memory, and who may see them.

A layout is a file `name.c` with two functions, listed in `layouts.h`, and a file `name.py` with a `Layout`, which
checks everything before an address leaves Python. `products.h` says what the functions do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The number of each float type in C."""
Leaves = Sequence[Tensor | None]
Options = Sequence[int]
STACK = 1 << 14
"""Columns of two rows that fit the stack of a thread."""


@dataclass(frozen=True)
class Layout:
    """How a matrix W (rows, columns) lies in memory.

    Attributes:
        name: its name in C.
        shape: `(leaves, options)` -> (rows, columns), where C may see these tensors: types, devices, strides, shapes
            and indices are checked here and nowhere else. None where C does not apply.
        describe: `(leaves, options)` -> W as C sees it, for leaves that passed.
        reference: `(x, leaves, options)` -> the product, by PyTorch.
        most: the most vectors that it is for.
        pieces: the most parts of its rows that are worth being multiplied one by one, whatever is done with x first.
        by_columns: where columns are decoded instead of rows, those of W^T: whether they can be, with these options.
        sound: `(leaves, options)` -> whether C stays within the tensors, for leaves that passed; asked again whenever
            one that holds indices was written to. None where no value decides on what is read.
    """

    name: str
    shape: Callable[[Leaves, Options], tuple[int, int] | None]
    describe: Callable[[Leaves, Options], ctypes.Structure]
    reference: Callable[[Tensor, Leaves, Options], Tensor]
    most: int | None = None
    pieces: int = 64
    by_columns: Callable[[Options], bool] | None = None
    sound: Callable[[Leaves, Options], bool] | None = None


LAYOUTS: dict[str, Layout] = {}
"""All layouts by name."""


def layout(found: Layout) -> Layout:
    """Enters a layout."""
    LAYOUTS[found.name] = found
    return found


def lies(tensor: Tensor | None, dtypes: torch.dtype | Sequence[torch.dtype], *shape: int) -> bool:
    """Whether a tensor lies in the CPU's memory as C reads it: row after row, of that dtype and shape (-1: any)."""
    return (
        tensor is not None
        and tensor.is_cpu
        and (tensor.dtype == dtypes if isinstance(dtypes, torch.dtype) else tensor.dtype in dtypes)
        and tensor.ndim == len(shape)
        and all(size in (-1, found) for size, found in zip(shape, tensor.shape, strict=True))
        and tensor.is_contiguous()
    )


def holding(described: ctypes.Structure, *tensors: Tensor) -> ctypes.Structure:
    """A matrix as C sees it, with tensors that live as long as it does."""
    described.tensors = tensors
    return described
