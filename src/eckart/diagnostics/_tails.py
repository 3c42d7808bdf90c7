"""Tails of spectra: what values have one, and Hill's estimate of its exponent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eckart.errors import Refused

Array = NDArray[np.float64]

LEAST = 50
"""Values below which no power law is fitted: Clauset, Shalizi and Newman call fewer unreliable."""


def hill(values: Tensor) -> float:
    """The exponent of the upper half of the values: 1 + 1 / mean ln(x_j / median) (Hill 1975).

    Raises:
        Refused: fewer than `LEAST` values, values that are not positive, or values that are all equal.
    """
    x = checked(values)
    tail = x[len(x) // 2 :]
    excess = float(np.log(tail / tail[0]).mean())
    if not excess > 1e-12:
        raise Refused("all values are equal, so they have no tail")
    return 1 + 1 / excess


def checked(values: Tensor) -> Array:
    """Values in ascending order and float64, enough of them and all positive."""
    if len(values) < LEAST:
        raise Refused(f"a fit needs {LEAST} values that are not zero, there are {len(values)}")
    x = np.sort(values.detach().double().cpu().numpy())
    if not 0 < x[0] <= x[-1] < math.inf:
        raise Refused(f"a power law is of positive finite values, got {x[0]} to {x[-1]}")
    return x
