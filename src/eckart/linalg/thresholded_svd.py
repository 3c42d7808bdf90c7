"""The singular values of a matrix that lie above a threshold, from the subspace that was right a moment ago."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from eckart.arrays import Dense, power_of_two

SPARE = 8
"""Directions that are carried beside those above the threshold, half of them drawn anew."""

SMALL = 512
"""The shorter side up to which all of A A^T is cheaper than a block that settles."""
SPANNED, RESOLVED = 1e-13, 1e-9
"""The least threshold, squared and by that of the largest singular value, above which eigenvectors of A A^T span the
singular ones, and above which they are these."""


class ThinSVD(NamedTuple):
    """left (m, k), values (k,) descending, right (n, k): the matrix is left @ diag(values) @ right.T."""

    left: Dense
    values: Dense
    right: Dense

    def dense(self) -> Dense:
        """The matrix (m, n)."""
        return (self.left * self.values) @ self.right.T


def thresholded_svd(
    a: Any,
    threshold: float,
    start: Dense,
    generator: np.random.Generator,
    *,
    tolerance: float = 1e-9,
    steps: int = 60,
    most: int | None = None,
) -> ThinSVD:
    """The singular triplets of A whose value exceeds a threshold, with some of those below.

    A block of right singular vectors is multiplied by A^T A until the values above the threshold stand still, and
    doubled until its least value lies below the threshold (the loss of a direction that the start is orthogonal to is
    prevented by random ones in the block). From a good start one or two products with A suffice, where a decomposition
    takes min(m, n). A block of more than a third of the shorter side is given up for the whole decomposition, and
    where that side of an array is short none is tried, but for a bounded number of triplets.

    Args:
        a: (m, n), an array, or anything of that `shape` with products `a @ x` and `a.T @ y`.
        threshold: at least 0.
        start: (n, k) columns near right singular vectors; k may be 0.
        generator: of the directions beside them.
        tolerance: relative change of the values above the threshold, between a product with A and that with A^T, at
            which they stand still.
        steps: products with A^T A at most, for one size of the block.
        most: triplets that are wanted at most; None for all above the threshold.

    Returns:
        Triplets in order of their values, among which are all above the threshold, or the first `most` of them.
    """
    m, n = a.shape
    block = start[:, :most]
    while True:
        size = block.shape[1] + SPARE
        if 3 * size > min(m, n) or (most is None and isinstance(a, np.ndarray) and min(m, n) <= SMALL):
            return _whole(a, threshold)
        fresh = generator.standard_normal((n, size - block.shape[1]))
        right = np.linalg.qr(np.hstack([block, fresh]))[0]
        found = _settled(a, right, threshold, tolerance, steps, most)
        if found.values[-1] <= threshold or block.shape[1] == most:
            return found
        block = np.hstack([found.right, generator.standard_normal((n, size))])[:, :most]


def spectral_norm(a: Any, generator: np.random.Generator, *, steps: int = 12) -> float:
    """The largest singular value of A, from below, by a block of a few vectors; to some per cent at worst."""
    return float(leading_svd(a, 1, generator, spare=3, steps=steps).values[0])


def leading_svd(
    a: Any, rank: int, generator: np.random.Generator, *, spare: int = SPARE, tolerance: float = 1e-3, steps: int = 12
) -> ThinSVD:
    """About the largest `rank` singular triplets of A, from a random block of so many vectors and some to spare."""
    start = generator.standard_normal((a.shape[1], min(rank + spare, *a.shape)))
    found = _settled(a, np.linalg.qr(start)[0], 0.0, tolerance, steps)
    return ThinSVD(found.left[:, :rank], found.values[:rank], found.right[:, :rank])


def _settled(a: Any, right: Dense, threshold: float, tolerance: float, steps: int, most: int | None = None) -> ThinSVD:
    """A step is two halves, A V and A^T U; both give values, and what stands still between them is enough."""
    for _ in range(steps):
        left, factor = np.linalg.qr(a @ right)
        before = np.linalg.svd(factor, compute_uv=False)
        before = before[before > threshold][:most]
        right, factor = np.linalg.qr(a.T @ left)
        u, values, v = np.linalg.svd(factor.T)
        above = values[values > threshold][:most]
        if len(above) == len(before) and np.allclose(above, before, rtol=tolerance, atol=0):
            break
    return ThinSVD(left @ u, values, right @ v.T)


def _whole(a: Any, threshold: float) -> ThinSVD:
    """All triplets, or those above half the threshold where it is far above the rounding of the squares.

    The eigenvectors of A A^T, of the shorter side, are singular vectors up to the rounding of the squares; where the
    threshold comes near that, they only span these, and values and vectors are those of A in their subspace.
    """
    m, n = a.shape
    dense = a if isinstance(a, np.ndarray) else a @ np.eye(n) if n <= m else (a.T @ np.eye(m)).T
    unit = power_of_two(dense)
    wide = (dense if dense.shape[0] <= dense.shape[1] else dense.T) / unit
    squares, u = np.linalg.eigh(wide @ wide.T)
    relative = (threshold / unit) ** 2 / max(squares.max(initial=0.0), np.finfo(float).tiny)
    if relative <= SPANNED:
        left, values, right = np.linalg.svd(dense, full_matrices=False)
        return ThinSVD(left, values, right.T)
    kept = squares > (threshold / unit) ** 2 / 4
    short = u[:, kept][:, ::-1]
    if relative > RESOLVED:
        values = np.sqrt(squares[kept][::-1])
        long = (wide.T @ short) / values
    else:
        q, factor = np.linalg.qr(wide.T @ short)
        left, values, right = np.linalg.svd(factor.T)
        short, long = short @ left, q @ right.T
    found = (short, long) if wide.shape == dense.shape else (long, short)
    return ThinSVD(found[0], values * unit, found[1])
