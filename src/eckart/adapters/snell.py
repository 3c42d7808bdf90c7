"""A change whose entries are a kernel of two vectors, and of which the largest entries act."""

from __future__ import annotations

import torch

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.structures.kernelized import Kernelized

DENSITY = 0.1
"""Share of the entries that act."""
SCALE = 0.1
"""Of the kernel, as in the reference code."""


def numbers(out: int, columns: int, rank: int) -> int:
    """2 k (out + in) with k = ceil(r / 2): those of a low-rank adapter for an even r."""
    return 2 * half(rank) * (out + columns)


def half(rank: int) -> int:
    return (rank + 1) // 2


def kernelized(layer: Layer, density: float) -> Kernelized:
    """The change at the start, zero: the two distances are equal."""
    k, (out, columns) = half(check_rank(layer)), layer.weight.shape
    a = torch.randn(out, k, generator=layer.generator, dtype=layer.dtype) / k**0.5
    kept = torch.tensor([max(1, round(density * out * columns))])
    return Kernelized(torch.stack([a, a]), a.new_zeros(2, columns, k), kept, scale=SCALE)


@adapter(
    "snell",
    paper="Shen 2024, arXiv 2411.01800",
    expression="Sum(Dense, Kernelized*)",
    parameters=numbers,
)
def snell(layer: Layer) -> Start:
    """W + D, D_ij = 0.1 (|a_i - b_j| - |a'_i - b'_j|) for the tenth of the entries that is largest in size, else 0.

    The vectors a, a', b, b' have r / 2 numbers, rounded up. At the start a = a' are normal with a length of about 1
    and b = b' = 0, so that D = 0. The competition is the paper's: entries below the quantile are zero, the others as
    they are; the reference code multiplies the others by their size once more. The matrix D is formed in every step.
    """
    return Start(kernelized(layer, DENSITY))
