"""The principal Kronecker products of the matrix train, the rest is frozen."""

from __future__ import annotations

from math import gcd

from torch import Tensor

from eckart.adapters.contract import Layer, Start, adapter, check_rank
from eckart.linalg.kronecker import largest_divisor, rearrange
from eckart.linalg.truncated_svd import truncated_svd
from eckart.structures.kronecker import Kronecker

ENERGY = 0.9
"""The first terms with so much of the squares of all that were asked for are enough, or those before the elbow."""
SIDE = 8
"""Largest number of columns of the first factors and of rows of the second ones."""


def sides(out: int, columns: int) -> tuple[int, int]:
    """The shape (c, d) of the second factors, c the largest divisor of both out and in that is at most `SIDE`.

    The first are then out / c x c, the second c x in / c. A term has out + in numbers, as one rank of a low-rank
    product has, and is of rank c^2; squarer factors have hardly fewer numbers, and their product takes longer.
    """
    c = largest_divisor(gcd(out, columns), SIDE)
    return c, columns // c


def enough(s: Tensor) -> int:
    """How many of some singular values to keep: as many as have `ENERGY` of their squares, or come before the elbow.

    A term is left out where both criteria call it negligible. The elbow is the value farthest below the straight line
    from the first to the last one.

    Args:
        s: (k,), descending, float64.
    """
    k, squares = len(s), s.square()
    energy = int((squares.cumsum(0) < ENERGY * squares.sum()).sum()) + 1
    line = s[0] + (s[-1] - s[0]) * s.new_tensor(range(k)) / max(1, k - 1)
    return min(k, max(1, energy, int((line - s).argmax())))


@adapter("soka", paper="Chong 2025, arXiv 2506.15251", expression="Sum(Dense, Kronecker*)")
def soka(layer: Layer) -> Start:
    """W = (W - S) + S with S = A_1 kron B_1 + ... + A_r kron B_r, the best such sum (Van Loan and Pitsianis).

    `rank` is the largest number of terms, each of out + in numbers where both have a divisor in common; a matrix gets
    fewer where 90 % of the squares of so many singular values, and their elbow, come earlier. The singular values are
    shared evenly between A and B.

    The two criteria are the paper's; how they are joined, 90 %, of what, and the shapes are not in its abstract. Of all
    of a real matrix 90 % are hundreds of terms, so that a criterion of the whole would leave none out.
    """
    (out, columns), (c, d) = layer.weight.shape, sides(*layer.weight.shape)
    u, s, vh = truncated_svd(rearrange(layer.weight.double(), c, d), check_rank(layer), generator=layer.generator)
    terms = enough(s)
    root = s[:terms].sqrt()[:, None]
    left, right = root * u[:, :terms].T, root * vh[:terms]
    a, b = left.reshape(terms, out // c, columns // d), right.reshape(terms, c, d)
    return Start(Kronecker(a.to(layer.dtype), b.to(layer.dtype)), split=True, rank=terms)
