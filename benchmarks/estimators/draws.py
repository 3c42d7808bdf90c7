"""What programs on planted problems share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Found = tuple[dict[str, Any], dict[str, Any]]
"""What was measured, and what came out."""


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


def relative(found: Any, truth: Any) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def middle(values: list[Any]) -> list[float]:
    """Medians, column by column."""
    return [float(each) for each in np.median(np.array(values, float), axis=0)]
