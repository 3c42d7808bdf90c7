"""Kernels, Gram matrices that are structured, and what is built on them, one paper a file."""

from typing import Any

from eckart.kernels._kernel import Kernel
from eckart.kernels._low_discrepancy import DigitalNet, Lattice
from eckart.kernels._named import (
    AdditiveChiSquared,
    Angle,
    ChiSquared,
    Cosine,
    Laplacian,
    Linear,
    Polynomial,
    Sigmoid,
    as_kernel,
)
from eckart.kernels._options import from_options as _from_options  # noqa: F401, with which files make kernels again
from eckart.kernels._points import Even, Grid, Points, Scattered
from eckart.kernels.contract import KERNELS
from eckart.scikit.files import load, save

__all__ = [
    "KERNELS",
    "AdditiveChiSquared",
    "Angle",
    "ChiSquared",
    "Cosine",
    "DigitalNet",
    "Even",
    "Grid",
    "Kernel",
    "Laplacian",
    "Lattice",
    "Linear",
    "Points",
    "Polynomial",
    "Scattered",
    "Sigmoid",
    "as_kernel",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    for card in [] if name.startswith("_") else KERNELS.values():
        if card.entry.__name__ == name:
            return card.entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *(card.entry.__name__ for card in KERNELS.values())]
