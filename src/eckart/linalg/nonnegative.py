"""Functions of matrices without negative entries, each entry to its own digits: sums and products, no difference."""

from __future__ import annotations

from math import ceil, log2

import torch
from torch import Tensor

from eckart.errors import Refused

TERMS = 21
"""Of the exponential series, of a matrix whose rows sum to at most one: the next is below 1e-19 of what it adds to."""


def exponential(b: Tensor, far: int) -> Tensor:
    """ln e^B, entry by entry, of B (n, n) without negative entries, any of which can be reached from any other.

    By squares of the exponential series of B / 2^s, 2^s above its row sums and above `far`, so that of the ways from i
    to j none that counts is longer than the series.

    Args:
        b: float64.
        far: steps between any two at most.

    Raises:
        Refused: an entry is below what a number of 64 bits holds beside the largest.
    """
    s = max(0, ceil(log2(max(float(b.detach().sum(1).max()), far, 1))))
    scaled = b / 2.0**s
    term = found = torch.eye(len(b), dtype=b.dtype, device=b.device)
    for k in range(1, TERMS + 1):
        term = term @ scaled / k
        found = found + term
    scale = torch.zeros((), dtype=b.dtype, device=b.device)
    for _ in range(s):
        found = found @ found
        size = found.max()
        found, scale = found / size, 2 * scale + size.log()
    return _positive(found).log() + scale


def resolvent(b: Tensor) -> Tensor:
    """(I - B)^-1 = (I + B) (I + B^2) (I + B^4) ..., of B (n, n) without negative entries, of spectral radius below 1.

    Args:
        b: float64; any index can be reached from any other.

    Raises:
        Refused: it does not converge, or an entry is below what a number of 64 bits holds.
    """
    eps = torch.finfo(b.dtype).eps
    found = torch.eye(len(b), dtype=b.dtype, device=b.device)
    power = b
    for _ in range(60):
        more = found @ power
        found = found + more
        if not bool(torch.isfinite(found).all()):
            break
        if bool(((more <= eps * found) & (found > 0)).all()):
            return found
        power = power @ power
    if bool(torch.isfinite(found).all()):
        return _positive(found)
    raise Refused("the series of (I - B)^-1 does not converge: the spectral radius of B is not below 1")


def _positive(found: Tensor) -> Tensor:
    if not bool((found > 0).all()):
        raise Refused(f"{int((found <= 0).sum())} entries are below the least number of 64 bits: take a larger t")
    return found
