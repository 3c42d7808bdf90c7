"""What factors data: an estimator of scikit-learn, or a solver; and a small problem whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from eckart.register import Card, Register
from eckart.scikit.planted import Kind, Planted

E = TypeVar("E", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class EstimatorCard(Card):
    """A paper that factors data, and its card.

    Attributes:
        entry: a class that scikit-learn's `check_estimator` passes; or a function of arrays, `generator=` where it
            draws, that gives a `Solution`.
        kind: which of these, in scikit-learn's words; a transformer of trials (trials, channels, samples), which
            `check_estimator` has no data for, is of "trials"; a function is a "solver".
        gives: what comes out, in words.
        takes: what it reads beside dense arrays of real numbers, in words: NaN as missing, sparse as observed.
        planted: draws a problem that it solves, by the suite of tests and by whoever wants to see it work.
    """

    family = "estimators"

    kind: Kind
    gives: str
    planted: Callable[[np.random.Generator], Planted]
    takes: str = ""

    def columns(self) -> dict[str, str]:
        return {
            "what it does": self.summary,
            "in Python": self.entry.__name__,
            "is a": self.kind,
            "gives": self.gives,
            "takes": self.takes,
            "paper": self.paper,
        }


ESTIMATORS = REGISTER = Register(EstimatorCard, "estimator", "eckart.estimators.ESTIMATORS['{name}'].entry(...)")
"""The cards of all estimators and solvers, by name."""


def estimator(
    name: str,
    *,
    paper: str,
    kind: Kind,
    gives: str,
    planted: Callable[[np.random.Generator], Planted],
    takes: str = "",
    expression: str = "",
    unmeasured: str = "",
) -> Callable[[E], E]:
    """Registers a class or a solver. See `EstimatorCard` for the arguments."""

    def register(entry: E) -> E:
        ESTIMATORS.add(
            EstimatorCard(
                name=name,
                paper=paper,
                entry=entry,
                kind=kind,
                gives=gives,
                planted=planted,
                takes=takes,
                expression=expression,
                unmeasured=unmeasured,
            )
        )
        return entry

    return register
