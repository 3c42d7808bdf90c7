"""What a paper of inference is: a context in which a model computes the same otherwise. The register of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ParamSpec

from eckart.register import Card, Register

P = ParamSpec("P")
Inside = Callable[P, AbstractContextManager[list[str]]]
"""`(model, ...)` -> a context that yields the names of the modules that compute otherwise inside."""


@dataclass(frozen=True, kw_only=True)
class InferenceCard(Card):
    """A published way to compute the outputs of a model, and its card.

    Attributes:
        entry: `(model, ...)` -> a context inside which the model's outputs are the same up to rounding.
        saves: what it takes less of.
    """

    family = "inference"

    entry: Callable[..., AbstractContextManager[list[str]]]
    saves: str

    def columns(self) -> dict[str, str]:
        return {"what it does": self.summary, "saves": self.saves, "paper": self.paper}


INFERENCE = REGISTER = Register(InferenceCard, "way to compute", "a context: with eckart.tiled(model)")
"""The cards of all ways to compute, by name."""


def inside(name: str, *, paper: str, saves: str, unmeasured: str = "") -> Callable[[Inside[P]], Inside[P]]:
    """Registers a context manager as a way to compute. See `InferenceCard` for the arguments."""

    def register(entry: Inside[P]) -> Inside[P]:
        INFERENCE.add(InferenceCard(name=name, paper=paper, entry=entry, saves=saves, unmeasured=unmeasured))
        return entry

    return register
