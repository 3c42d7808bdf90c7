"""Newton's method with steps that are halved while they lead away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError

from eckart.arrays import Dense

NEWTON, HALVINGS = 40, 12
"""Steps, and how often one is halved."""


def newton(step: Callable[[Dense], Dense], rest: Callable[[Dense], Dense], start: Dense) -> Dense:
    """A root of `rest`, or where its norm falls no more: steps to where its linear part is zero, halved while it grows.

    Raises:
        LinAlgError: the norm at the start is no number.
    """
    at, size = start, float(np.linalg.norm(rest(start)))
    if not np.isfinite(size):
        raise LinAlgError("the equation's left side has NaN or Inf where Newton's steps begin")
    for _ in range(NEWTON):
        move = step(at) - at
        for halving in range(HALVINGS):
            there: Dense = at + move / 2**halving
            fresh = float(np.linalg.norm(rest(there)))
            if fresh < size:
                break
        else:
            return at
        gained, at, size = size - fresh, there, fresh
        if gained < 1e-3 * fresh:
            return at
    return at
