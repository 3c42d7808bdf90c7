"""Small problems whose answer is known, on which an estimator or a solver shows what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["transformer", "regressor", "classifier", "clusterer", "density", "sums", "trials", "graph", "solver"]
"""What fits, in scikit-learn's words; "sums" transforms points that it was not fitted to; a "graph" is one whose edges
come and go; a solver is a function that gives a `Solution`."""


@dataclass(frozen=True)
class Planted:
    """A small problem whose answer is known.

    Attributes:
        arguments: of a solver; or of an estimator's `fit`, by name.
        error: how far a solver's `Solution`, or the fitted estimator, is from the answer.
        within: what the median of ten draws stays below.
        options: of an estimator's constructor.
        varies: ways of writing one and the same table on which what is found depends ("order of rows", "order of
            columns", "scale", "float32"), each with the reason.
    """

    arguments: Mapping[str, Any]
    error: Callable[[Any], Any]
    within: float
    options: Mapping[str, Any] = field(default_factory=dict)
    varies: Mapping[str, str] = field(default_factory=dict)
