"""Estimators: scikit-learn's and solvers, that factor tables, ratings, spectra, films and signals, one paper a file."""

from typing import Any

from eckart.estimators.contract import ESTIMATORS
from eckart.scikit.files import load, save

__all__ = ["ESTIMATORS", "load", "save"]


def __getattr__(name: str) -> Any:
    for card in [] if name.startswith("_") else ESTIMATORS.values():
        if card.entry.__name__ == name:
            return card.entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(card.entry.__name__ for card in ESTIMATORS.values())]
