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


def ahead(values: Any, reference: Any, held: float = 0.0) -> tuple[float, float]:
    """Mean of the differences, draw by draw, and its standard error.

    `held` is the number of rows that are told by those that are fitted, where draws are splits of one table: they share
    rows, and what is held out adds to the variance of a draw (Nadeau and Bengio 2003).
    """
    differences = np.asarray(values, float) - np.asarray(reference, float)
    error = np.sqrt(differences.var(ddof=1) * (1 / len(differences) + held)) if len(differences) > 1 else np.nan
    return float(differences.mean()), float(error)
