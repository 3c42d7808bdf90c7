"""The fast Walsh-Hadamard transform of arrays, as a few products with small matrices."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from scipy.linalg import hadamard
from torch import Tensor

from eckart.errors import Refused
from eckart.structures.transforms import hadamard_transform

_BLOCK = 128
A = TypeVar("A", np.ndarray, Tensor)


def walsh_hadamard(x: A) -> A:
    """The orthonormal Walsh-Hadamard transform along the first axis, in Sylvester's order; its own inverse.

    H_(a b) = H_a kron H_b: a product with a matrix of 128 for each 7 bits of n.

    Args:
        x: (n, ...), n a power of two; an array, or a tensor through which gradients go.

    Raises:
        Refused: n is no power of two.
    """
    n = len(x)
    if n < 1 or n & (n - 1):
        near = 1 << max(n - 1, 0).bit_length()
        raise Refused(f"a Walsh-Hadamard transform is of 2^k numbers, and there are {n}: pad with zeros to {near}")
    if isinstance(x, Tensor):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return hadamard_transform(wide.movedim(0, -1)).movedim(-1, 0).to(x.dtype)
    kind = x.dtype if x.dtype.kind == "f" else np.dtype(float)
    y = np.array(x, dtype=np.promote_types(kind, np.float32)).reshape(n, -1)
    before = 1
    while before < n:
        size = min(_BLOCK, n // before)
        y = (hadamard(size).astype(y.dtype) @ y.reshape(before, size, -1)).reshape(n, -1)
        before *= size
    found: np.ndarray = (y * n**-0.5).reshape(x.shape).astype(kind)
    return found
