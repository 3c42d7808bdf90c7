"""Sketching: functions that draw, sketch, sample, sparsify and transport, with a stated error, one paper a file."""

from typing import Any

from eckart.scikit.files import load, save
from eckart.sketching.contract import SKETCHES

__all__ = ["SKETCHES", "load", "save"]


def __getattr__(name: str) -> Any:
    for card in [] if name.startswith("_") else SKETCHES.values():
        for entry in (card.entry, card.estimator):
            if entry is not None and entry.__name__ == name:
                return entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    classes = [card.estimator.__name__ for card in SKETCHES.values() if card.estimator]
    return [*__all__, *(card.entry.__name__ for card in SKETCHES.values()), *classes]
