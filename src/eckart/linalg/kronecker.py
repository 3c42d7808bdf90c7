"""The nearest sum of Kronecker products."""

from __future__ import annotations

from torch import Tensor


def largest_divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most `most`.

    >>> largest_divisor(576, 8), largest_divisor(12, 8), largest_divisor(13, 8)
    (8, 6, 1)
    """
    return next(d for d in range(most, 0, -1) if n % d == 0)


def rearrange(weight: Tensor, c: int, d: int) -> Tensor:
    """W (out, in) as (out / c * in / d, c d): its c x d blocks, row after row of blocks, one a row.

    A kron B becomes the outer product of the entries of A and those of B.
    """
    out, columns = weight.shape
    return weight.reshape(out // c, c, columns // d, d).transpose(1, 2).reshape(-1, c * d)
