"""What a sketch is: a function of arrays and a generator, a bound on its error, and a problem to try it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from eckart.register import Card, Register

Problem = Callable[[np.random.Generator], Mapping[str, Any]]
"""Draws a small problem: the arguments of a sketch by name, without its generator."""
S = TypeVar("S", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class SketchCard(Card):
    """A paper that draws, sketches, samples, sparsifies or transports, and its card.

    Attributes:
        entry: arrays, options and, where it draws, `generator=` -> arrays, a `Solution`, or an object with methods.
        gives: what comes out, in words.
        error: what is known of the error, and whether it is stated with the result, in words.
        problem: a small problem that it is tried on, by the suite of tests and by whoever wants to see it work.
        draws: whether the result depends on a generator.
    """

    family = "sketching"

    entry: Callable[..., Any]
    gives: str
    error: str
    problem: Problem
    draws: bool

    def columns(self) -> dict[str, str]:
        return {"what it does": self.summary, "gives": self.gives, "error": self.error, "paper": self.paper}


SKETCHES = REGISTER = Register(SketchCard, "sketch", "eckart.sketching.SKETCHES['{name}'].entry(...)")
"""The cards of all sketches, by name."""


def sketch(
    name: str, *, paper: str, gives: str, error: str, problem: Problem, draws: bool = True, unmeasured: str = ""
) -> Callable[[S], S]:
    """Registers a function as a sketch. See `SketchCard` for the arguments."""

    def register(entry: S) -> S:
        SKETCHES.add(
            SketchCard(
                name=name,
                paper=paper,
                entry=entry,
                gives=gives,
                error=error,
                problem=problem,
                draws=draws,
                unmeasured=unmeasured,
            )
        )
        return entry

    return register
