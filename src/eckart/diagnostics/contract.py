"""What a diagnostic is given, and what it gives: named numbers. The register of diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from torch import Tensor

from eckart.linalg.spectrum import Spectrum
from eckart.register import Card, Register

Value = float | int | bool | str | list[float] | list[int] | None
Numbers = Mapping[str, Value]
"""What a diagnostic gives, by column; None for a number that there cannot be."""


@dataclass(frozen=True)
class Column:
    """A number that a diagnostic gives.

    Attributes:
        about: what it is, a sentence without its full stop; for the report's schema and the documentation.
        kind: its type in JSON.
        title: its heading in the tables of the terminal; "" for one that only files and the page show.
        mean: whether its mean over all matrices is among the numbers that sum a model up.
        extremes: whether the terminal names the matrices that have least and most of it.
    """

    about: str
    kind: Literal["number", "integer", "boolean", "string", "numbers", "integers"] = "number"
    title: str = ""
    mean: bool = False
    extremes: bool = False


@dataclass(frozen=True)
class Matrix:
    """A matrix that is looked at.

    Attributes:
        weight: W (out, in), finite and not zero.
        filter: the same, or of a convolution (out, in, height, width).
        spectrum: of W.
        window: side of the square windows that fit all matrices of the model; None where there are none.
        seed: of whatever is drawn.
    """

    weight: Tensor
    filter: Tensor
    spectrum: Spectrum
    window: int | None
    seed: int


@dataclass(frozen=True)
class Change:
    """A matrix and what it came from, both (out, in), finite."""

    base: Tensor
    tuned: Tensor


@dataclass(frozen=True)
class Pairs:
    """Features (n, d) and (n, e) of two sets whose rows pair."""

    first: Tensor
    second: Tensor


SUBJECTS: dict[str, type] = {"matrix": Matrix, "change": Change, "hidden states": Tensor, "pairs": Pairs}
"""What diagnostics are about, and what each is given; hidden states are those of one layer, (tokens, d)."""

Look = Callable[[Any], Numbers]
L = TypeVar("L", bound=Look)


@dataclass(frozen=True, kw_only=True)
class DiagnosticCard(Card):
    """A published diagnostic and its card.

    Attributes:
        entry: a subject -> numbers by column; `Refused` where there cannot be any.
        of: the subject, a word of `SUBJECTS`.
        gives: its columns.
        noun: what is missing where it refuses: the row says `no NOUN: ...`.
    """

    family = "diagnostics"

    entry: Look
    of: str
    gives: Mapping[str, Column]
    noun: str

    def columns(self) -> dict[str, str]:
        return {"of": self.of, "what it does": self.summary, "gives": ", ".join(self.gives), "paper": self.paper}


DIAGNOSTICS = REGISTER = Register(DiagnosticCard, "diagnostic", "eckart.diagnose, or eckart diagnose")


def diagnostic(
    name: str, *, paper: str, of: str, gives: Mapping[str, Column], noun: str = "", unmeasured: str = ""
) -> Callable[[L], L]:
    """Registers a function as a diagnostic. See `DiagnosticCard` for the arguments; `noun` is the name if left out."""
    if of not in SUBJECTS:
        raise ValueError(f"diagnostic {name!r} is of {of!r}; there are {', '.join(SUBJECTS)}")

    def register(entry: L) -> L:
        card = DiagnosticCard(
            name=name, paper=paper, entry=entry, of=of, gives=gives, noun=noun or name, unmeasured=unmeasured
        )
        DIAGNOSTICS.add(card)
        return entry

    return register
