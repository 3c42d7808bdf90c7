"""What a kernel is, what is built on kernels, and the register of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from eckart.register import Card, Register
from eckart.scikit.planted import Kind, Planted

E = TypeVar("E", bound=Callable[..., Any])


@dataclass(frozen=True)
class Example:
    """A kernel and inputs of its own.

    Attributes:
        kernel: of type `Kernel`.
        inputs: what it is called with, n of them.
        others: m others.
        same: maps of inputs that it does not see, as a shift of all of them.
    """

    kernel: Any
    inputs: Any
    others: Any
    same: Sequence[Callable[[Any], Any]] = ()


@dataclass(frozen=True, kw_only=True)
class KernelCard(Card):
    """A paper about kernels and its card.

    Attributes:
        entry: a `Kernel`; a class that scikit-learn's `check_estimator` passes; or a function, `generator=` where it
            draws, that gives a `Solution`.
        kind: which of these: "kernel", or in scikit-learn's words; a function is a "solver".
        gives: what comes out, in words.
        takes: what it reads beside dense arrays of real numbers, in words.
        example: of a kernel: draws one with inputs.
        planted: of the others: draws a problem that it solves.
    """

    family = "kernels"

    kind: Literal["kernel"] | Kind
    gives: str
    takes: str = ""
    example: Callable[[np.random.Generator], Example] | None = None
    planted: Callable[[np.random.Generator], Planted] | None = None

    def columns(self) -> dict[str, str]:
        return {
            "what it does": self.summary,
            "in Python": self.entry.__name__,
            "is a": self.kind,
            "gives": self.gives,
            "takes": self.takes,
            "paper": self.paper,
        }


KERNELS = REGISTER = Register(KernelCard, "kernel method", "eckart.kernels.KERNELS['{name}'].entry(...)")
"""The cards of all kernels, and of all that is built on them, by name."""


def kernel(
    name: str,
    *,
    paper: str,
    gives: str,
    example: Callable[[np.random.Generator], Example],
    takes: str = "",
    expression: str = "",
    unmeasured: str = "",
) -> Callable[[E], E]:
    """Registers a `Kernel`. See `KernelCard` for the arguments."""
    return _registered(
        name=name,
        paper=paper,
        kind="kernel",
        gives=gives,
        takes=takes,
        example=example,
        expression=expression,
        unmeasured=unmeasured,
    )


def kernel_method(
    name: str,
    *,
    paper: str,
    kind: Kind,
    gives: str,
    planted: Callable[[np.random.Generator], Planted],
    takes: str = "",
    expression: str = "",
    unmeasured: str = "",
) -> Callable[[E], E]:
    """Registers an estimator or a solver that is built on kernels. See `KernelCard` for the arguments."""
    return _registered(
        name=name,
        paper=paper,
        kind=kind,
        gives=gives,
        takes=takes,
        planted=planted,
        expression=expression,
        unmeasured=unmeasured,
    )


def _registered(**card: Any) -> Callable[[E], E]:
    def register(entry: E) -> E:
        KERNELS.add(KernelCard(entry=entry, **card))
        return entry

    return register
