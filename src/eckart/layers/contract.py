"""What a layer is: a module or a loss that a network is built or trained with. The register of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from eckart.register import Card, Register

E = TypeVar("E", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class LayerCard(Card):
    """A published layer or loss and its card.

    Attributes:
        entry: the module's class, or the function.
        cost: what it takes in time or memory, in words or as a formula.
    """

    family = "layers"

    entry: Callable[..., Any]
    cost: str

    def columns(self) -> dict[str, str]:
        return {"what it does": self.summary, "computes": self.expression, "takes": self.cost, "paper": self.paper}


LAYERS = REGISTER = Register(LayerCard, "layer", 'eckart.layers.LAYERS["{name}"].entry')
"""The cards of all layers, by name."""


def layer(name: str, *, paper: str, expression: str, cost: str, unmeasured: str = "") -> Callable[[E], E]:
    """Registers a class or a function as a layer. See `LayerCard` for the arguments."""

    def register(entry: E) -> E:
        LAYERS.add(
            LayerCard(name=name, paper=paper, entry=entry, expression=expression, cost=cost, unmeasured=unmeasured)
        )
        return entry

    return register
