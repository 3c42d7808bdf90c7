"""The principal Kronecker products of the matrix train, the rest is frozen."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.kronecker import largest_divisor, rearrange
from eckart.linalg.truncated_svd import truncated_svd
from eckart.structures.kronecker import Kronecker

ENERGY = 0.9
"""Terms with so much of the squared norm of W are enough, unless the elbow comes later."""


def sides(out: int, columns: int) -> tuple[int, int]:
    """The shape (c, d) of the second factors: the largest divisors not above the square roots of out and in.

    The first are then out / c x in / d, and for sizes with divisors near their roots a term has about
    2 sqrt(out in) <= out + in numbers.
    """
    return largest_divisor(out, isqrt(out)), largest_divisor(columns, isqrt(columns))


def numbers(out: int, columns: int, rank: int) -> int:
    """Numbers that train in `rank` terms beside a matrix (out, columns)."""
    c, d = sides(out, columns)
    return rank * ((out // c) * (columns // d) + c * d)


def enough(s: Tensor, total: float) -> int:
    """How many of the first singular values to keep: as many as have `ENERGY` of all, or as come before the elbow.

    A term is left out where both criteria call it negligible. The elbow is the value farthest below the straight line
    from the first to the last one.

    Args:
        s: (k,), descending.
        total: squared norm of the whole.
    """
    k = len(s)
    energy = int((s.square().cumsum(0) < ENERGY * total).sum()) + 1
    line = torch.linspace(float(s[0]), float(s[-1]), k, dtype=s.dtype, device=s.device)
    return min(k, max(1, energy, int((line - s).argmax())))


@adapter(
    "soka",
    paper="Chong 2025, arXiv 2506.15251",
    expression="Sum(Dense, Kronecker*)",
    parameters=numbers,
)
def soka(layer: Layer) -> Start:
    """W = (W - S) + S with S = A_1 kron B_1 + ... + A_r kron B_r, the best such sum (Van Loan and Pitsianis).

    `rank` is the largest number of terms, each of about 2 sqrt(out in) numbers; a matrix gets fewer where few have
    90 % of its squared norm and lie before the elbow of the singular values. The singular values are shared evenly
    between A and B. The two criteria are the paper's; how they are joined, 90 % and the shapes are not.
    """
    (out, columns), (c, d) = layer.weight.shape, sides(*layer.weight.shape)
    blocks = rearrange(layer.weight.double(), c, d)
    most = min(check_rank(layer), *blocks.shape)
    u, s, vh = truncated_svd(blocks, most, generator=layer.generator)
    terms = enough(s, float(blocks.square().sum()))
    root = s[:terms].sqrt()[:, None]
    left, right = root * u[:, :terms].T, root * vh[:terms]
    a, b = left.reshape(terms, out // c, columns // d), right.reshape(terms, c, d)
    return Start(Kronecker(a.to(layer.dtype), b.to(layer.dtype)), split=True, rank=terms)
