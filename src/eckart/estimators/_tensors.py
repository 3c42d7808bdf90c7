"""The door for tensors with missing entries."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Array, Dense, observed, power_of_two
from eckart.errors import Refused


def opened(tensor: Array) -> tuple[Dense, Dense, float]:
    """The tensor by a power of two, 0 where it was NaN; where it was not; and that power.

    Raises:
        Refused: it is of one mode or none, sparse, no real numbers, empty, infinite somewhere, or NaN everywhere.
    """
    held, seen = observed(tensor, "the tensor", ndim=None)
    if held.ndim < 2 or not held.size:
        raise Refused(f"the tensor is of shape {held.shape}, and two modes or more are needed, none of them empty")
    unit = power_of_two(held)
    return np.ascontiguousarray(held / unit), seen, unit
