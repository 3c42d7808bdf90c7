"""Orthogonal matrices that spread whatever stands in one place over all, of any size, applied fast."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.structures._checks import size_option
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense
from eckart.structures.diagonal import Diagonal
from eckart.structures.interleaved import Interleaved
from eckart.structures.repeated import Repeated
from eckart.structures.transforms import Hadamard


def random_rotation(size: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> StructuredMatrix:
    """A random orthogonal matrix of which every entry is of about the same magnitude, in `dtype`.

    (O kron H) diag(signs), H the Hadamard matrix of the largest power of two that divides `size`, O a random orthogonal
    matrix of what is left (9 x 9 for 576), signs random. It stores O and the signs and costs about
    `size (O + 2 sqrt(H))` multiply-adds.

    Args:
        size: rows and columns, any.
        generator: on the CPU; draws signs and O.
        dtype: of O and of the signs.
    """
    signs, mixing = drawn_rotation(size, generator)
    return spread(signs.to(dtype), None if mixing is None else mixing.to(dtype))


def drawn_rotation(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """The signs (size,), and O where there is one, of `random_rotation`; float64."""
    odd = size_option("random_rotation", "size", size) // (size & -size)
    signs = torch.randint(2, (size,), generator=generator).double() * 2 - 1
    if odd == 1:
        return signs, None
    q, r = torch.linalg.qr(torch.randn(odd, odd, generator=generator, dtype=torch.float64))
    return signs, (q * r.diagonal().sign()).contiguous()  # signs, so that all orthogonal matrices are as likely


def spread(signs: Tensor, mixing: Tensor | None) -> StructuredMatrix:
    """(O kron H) diag(signs), O the matrix `mixing`, or 1, and H the Hadamard matrix of the size that is left."""
    odd = 1 if mixing is None else len(mixing)
    power = len(signs) // odd
    parts: list[StructuredMatrix] = [Diagonal(signs)]
    if power > 1:
        parts.insert(0, Repeated(Hadamard(power), copies=odd) if odd > 1 else Hadamard(power))
    if mixing is not None:
        parts.insert(0, Interleaved(Dense(mixing), copies=power) if power > 1 else Dense(mixing))
    return Chain(*parts) if len(parts) > 1 else parts[0]
