"""What a sketch is: a function of arrays and a generator, a bound on its error, and a problem to try it on.

Some are estimators of scikit-learn too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from eckart.register import Card, Register
from eckart.scikit.planted import Kind, Planted
from eckart.sketching._options import checked, checked_fits

Problem = Callable[[np.random.Generator], Mapping[str, Any]]
"""Draws a small problem: the arguments of a sketch by name, without its generator."""
S = TypeVar("S", bound=Callable[..., Any])
E = TypeVar("E", bound=type)


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """A sketch as an estimator.

    Attributes:
        name: of the sketch.
        entry: a class that scikit-learn's `check_estimator` passes.
        kind: what it is, in scikit-learn's words.
        planted: draws a problem that it solves.
        takes: what it reads beside dense and sparse arrays, in words.
    """

    name: str
    entry: type
    kind: Kind
    planted: Callable[[np.random.Generator], Planted]
    takes: str = ""


@dataclass(frozen=True, kw_only=True)
class SketchCard(Card):
    """A paper that draws, sketches, samples, sparsifies or transports, and its card.

    Attributes:
        entry: arrays, options and, where it draws, `generator=` -> arrays, a `Solution`, or an object with methods.
        gives: what comes out, in words.
        error: what is known of the error, and whether it is stated with the result, in words.
        problem: a small problem that it is tried on, by the suite of tests and by whoever wants to see it work.
        limit: a problem, options among its arguments, at which nothing is left to chance: all rows, all anchors, one
            block; and how far what comes out is from what is computed by other means.
        draws: whether the result depends on a generator.
        fittings: the estimator that does the same, where there is one; see `estimates`.
    """

    family = "sketching"

    entry: Callable[..., Any]
    gives: str
    error: str
    problem: Problem
    limit: Callable[[np.random.Generator], Planted]
    draws: bool
    fittings: list[Fitting] = field(default_factory=list)

    @property
    def estimator(self) -> type | None:
        """The class of the estimator that does the same."""
        return self.fittings[0].entry if self.fittings else None

    def columns(self) -> dict[str, str]:
        names = [entry.__name__ for entry in (self.entry, self.estimator) if entry is not None]
        return {
            "what it does": self.summary,
            "in Python": ", ".join(names),
            "gives": self.gives,
            "error": self.error,
            "paper": self.paper,
        }


SKETCHES = REGISTER = Register(SketchCard, "sketch", "eckart.sketching.SKETCHES['{name}'].entry(...)")
"""The cards of all sketches, by name."""


def sketch(
    name: str,
    *,
    paper: str,
    gives: str,
    error: str,
    problem: Problem,
    limit: Callable[[np.random.Generator], Planted],
    draws: bool = True,
    unmeasured: str = "",
) -> Callable[[S], S]:
    """Registers a function as a sketch, its options checked by their annotations.

    See `SketchCard` for the arguments.
    """

    def register(entry: S) -> S:
        if isinstance(entry, type):
            entry.__init__ = checked(entry.__init__)  # type: ignore[misc]
        else:
            entry = checked(entry)
        SKETCHES.add(
            SketchCard(
                name=name,
                paper=paper,
                entry=entry,
                gives=gives,
                error=error,
                problem=problem,
                limit=limit,
                draws=draws,
                unmeasured=unmeasured,
            )
        )
        return entry

    return register


def estimates(
    name: str, *, kind: Kind, planted: Callable[[np.random.Generator], Planted], takes: str = ""
) -> Callable[[E], E]:
    """Registers a class as the estimator of a sketch. See `Fitting` for the arguments."""

    def register(entry: E) -> E:
        checked_fits(entry)
        SKETCHES[name].fittings.append(Fitting(name=name, entry=entry, kind=kind, planted=planted, takes=takes))
        return entry

    return register
