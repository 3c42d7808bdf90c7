"""Orthogonal matrices that spread whatever stands in one place over all, of any size, applied fast."""

from __future__ import annotations

import torch
from torch import nn

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
    `size (O + 2 sqrt(H))` multiply-adds. Nothing in it trains.

    Args:
        size: rows and columns, any.
        generator: on the CPU; draws signs and O.
        dtype: of O and of the signs.
    """
    power = size_option("random_rotation", "size", size) & -size
    odd = size // power
    signs = torch.randint(2, (size,), generator=generator).to(torch.float64) * 2 - 1
    parts: list[StructuredMatrix] = [Diagonal(signs.to(dtype))]
    if power > 1:
        transform = Hadamard(power)
        parts.insert(0, Repeated(transform, copies=odd) if odd > 1 else transform)
    if odd > 1:
        drawn = torch.randn(odd, odd, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(drawn)
        mixing = Dense((q * r.diagonal().sign()).to(dtype))  # so that all orthogonal matrices are as likely
        parts.insert(0, Interleaved(mixing, copies=power) if power > 1 else mixing)
    made = Chain(*parts) if len(parts) > 1 else parts[0]
    nn.Module.requires_grad_(made, False)
    return made
