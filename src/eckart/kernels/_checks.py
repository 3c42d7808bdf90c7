"""Options and matrices that are refused by name, and scales that keep squares within floating point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eckart.arrays import Dense, number, power_of_two
from eckart.errors import Refused

AT_ONCE = 2**22
"""Entries of a kernel matrix that are computed together, 32 MiB of them."""
ROUNDED = 1e-5
"""How far entries that should be equal may be apart, by the largest of the matrix."""


def share(**values: Any) -> None:
    """Raises Refused for what is no number from 0 on, below 1."""
    for name, value in values.items():
        if not 0 <= number(value) < 1:
            raise Refused(f"{name}={value!r} is no share: a number from 0 on, below 1, is needed")


def not_negative(**values: Any) -> None:
    """Raises Refused for what is no finite number from 0 on."""
    for name, value in values.items():
        if not 0 <= number(value) < np.inf:
            raise Refused(f"{name}={value!r} is no number from 0 on")


def real(**values: Any) -> None:
    """Raises Refused for what is no finite number."""
    for name, value in values.items():
        if not -np.inf < number(value) < np.inf:
            raise Refused(f"{name}={value!r} is no finite number")


def symmetric(matrix: Dense) -> None:
    """Raises Refused for a matrix (n, n) of all pairs that is not square, or not symmetric but for rounding of float32.

    A decomposition would read one triangle of it and never look at the other.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise Refused(f"a precomputed kernel is a matrix of all pairs, and X of shape {matrix.shape} is not square")
    scale = power_of_two(matrix)
    for rows in blocks(len(matrix), len(matrix)):
        apart = np.abs(matrix[rows] / scale - matrix[:, rows].T / scale)
        if apart.max(initial=0.0) > ROUNDED:
            i, j = (int(at) for at in np.unravel_index(apart.argmax(), apart.shape))
            i += rows.start
            raise Refused(
                f"a precomputed kernel is symmetric, and X has {matrix[i, j]:g} at ({i}, {j}) and {matrix[j, i]:g} at "
                f"({j}, {i}): hand in (X + X.T) / 2 if that is meant"
            )


def standing(y: Dense) -> tuple[float, float, Dense]:
    """m, u, and r with y = m + u r, m the mean and u a power of two: the largest of r is between 1 and 2.

    The squares of r neither vanish nor overflow, as those of y may. Of a constant r is zero, and u is 1.

    Raises:
        Refused: y differs by less than float64 holds with all its digits.
    """
    first = power_of_two(y)
    scaled = y / first
    # The mean of equal numbers may be beside them by rounding.
    mean = float(scaled.mean()) if np.ptp(scaled) > 0 else float(scaled[0])
    rest: Dense = scaled - mean
    if not rest.any():
        return mean * first, 1.0, rest
    second = power_of_two(rest)
    if first * second < np.finfo(float).tiny:
        raise Refused("values differ by as little as float64 holds: multiply them by a power of two")
    return mean * first, first * second, rest / second


def squared(unit: float, share: float = 1.0) -> float:
    """share unit^2, a variance; Refused where float64 does not hold it.

    Raises:
        Refused: of values whose squares vanish or overflow.
    """
    found = share * unit * unit
    if not np.finfo(float).tiny <= found < np.inf:
        raise Refused(
            f"values that differ by {unit:.3g} have variances that float64 does not hold: divide them by a power of two"
        )
    return found


def blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows, of so many that rows x width are computed at once."""
    step = max(1, AT_ONCE // max(width, 1))
    return (slice(at, min(at + step, n)) for at in range(0, n, step))
