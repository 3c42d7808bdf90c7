"""What a paper of inference is: a context in which a model computes the same otherwise. The register of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ParamSpec

from eckart.register import Card, Register

P = ParamSpec("P")
Inside = Callable[P, AbstractContextManager[list[str]]]
"""`(model, ...)` -> a context that yields the names of the modules that compute otherwise inside."""


@dataclass(frozen=True, kw_only=True)
class InferenceCard(Card):
    """A published way to compute the outputs of a model, and its card.

    Attributes:
        entry: `(model, ...)` -> a context inside which the model computes otherwise.
        saves: what it takes less of.
        approximates: what is rounded or left out inside, in words; "" where outputs are the same up to rounding.
        limit: the options of `entry` at which an approximate way gives the same outputs up to rounding too; none
            where it never does.
        calibrated: whether the second argument of `entry` are tokens (samples, length) to calibrate on.
    """

    family = "inference"

    entry: Callable[..., AbstractContextManager[list[str]]]
    saves: str
    approximates: str = ""
    limit: Mapping[str, object] = field(default_factory=dict)
    calibrated: bool = False

    @property
    def exact(self) -> bool:
        """Whether outputs are the same up to rounding at all options."""
        return not self.approximates

    def columns(self) -> dict[str, str]:
        outputs = "the same" if self.exact else f"approximate: {self.approximates}"
        return {"what it does": self.summary, "saves": self.saves, "outputs": outputs, "paper": self.paper}


INFERENCE = REGISTER = Register(InferenceCard, "way to compute", "a context: with eckart.tiled(model)")
"""The cards of all ways to compute, by name."""


def inside(
    name: str,
    *,
    paper: str,
    saves: str,
    approximates: str = "",
    limit: Mapping[str, object] | None = None,
    calibrated: bool = False,
    unmeasured: str = "",
) -> Callable[[Inside[P]], Inside[P]]:
    """Registers a context manager as a way to compute. See `InferenceCard` for the arguments."""

    def register(entry: Inside[P]) -> Inside[P]:
        card = InferenceCard(
            name=name,
            paper=paper,
            entry=entry,
            saves=saves,
            approximates=approximates,
            limit=limit or {},
            calibrated=calibrated,
            unmeasured=unmeasured,
        )
        INFERENCE.add(card)
        return entry

    return register
