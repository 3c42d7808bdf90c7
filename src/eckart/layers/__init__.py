"""Layers: modules and losses, one paper a file."""

from typing import Any

from eckart.layers.contract import LAYERS

__all__ = ["LAYERS"]


def __getattr__(name: str) -> Any:
    for card in [] if name.startswith("_") else LAYERS.values():
        if card.entry.__name__ == name:
            return card.entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(card.entry.__name__ for card in LAYERS.values())]
