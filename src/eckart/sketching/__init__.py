"""Sketching: functions that draw, sketch, sample, sparsify and transport, with a stated error, one paper a file."""

from typing import Any

from eckart.sketching.contract import SKETCHES

__all__ = ["SKETCHES"]


def __getattr__(name: str) -> Any:
    for card in [] if name.startswith("_") else SKETCHES.values():
        if card.entry.__name__ == name:
            return card.entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(card.entry.__name__ for card in SKETCHES.values())]
