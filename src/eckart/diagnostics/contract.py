"""What a diagnostic is given, and what it gives: named numbers. The register of diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from eckart.budget.product_time import Timed
from eckart.diagnostics._subjects import Curvature as Curvature
from eckart.diagnostics._subjects import Examples as Examples
from eckart.diagnostics._subjects import Pool as Pool
from eckart.diagnostics._tails import LEAST
from eckart.errors import Refused
from eckart.linalg.spectrum import Spectrum, check
from eckart.register import Card, Register
from eckart.report.diagnosis import Kind, Place, Unit

Value = float | int | bool | str | list[float] | list[int] | None
Numbers = Mapping[str, Value]
"""What a diagnostic gives: each of its columns, None for a number that there cannot be."""


@dataclass(frozen=True)
class Column:
    """A number that a diagnostic gives.

    Attributes:
        about: what it is, a sentence without its full stop; for the report's schema and the documentation.
        kind: its type in JSON.
        unit: `share` of a whole, from 0 to 1; `ratio` to something of its kind; `rank` out of the shorter side; `nats`;
            or a plain number.
        title: what it is called in a heading; its name in words where that is left out.
        short: its heading in the terminal's tables; "" where that of kinds of matrices does not show it.
        place: how far a number goes on the page: nowhere (`file`), beside the matrix that is looked at (`facts`), into
            the table too, or into the colours of the map too.
        mean: whether its mean over all matrices is among the numbers that sum a model up.
        extremes: whether the matrices that have least and most of it are named.
    """

    about: str
    _: KW_ONLY
    kind: Kind = "number"
    unit: Unit = ""
    title: str = ""
    short: str = ""
    place: Place = "map"
    mean: bool = False
    extremes: bool = False

    def heading(self, name: str) -> str:
        """What a column of that name is called in a heading."""
        return self.title or name.replace("_", " ").replace(".", " ")


@dataclass(frozen=True)
class Matrix:
    """A matrix that is looked at.

    Attributes:
        weight: W (out, in), finite.
        spectrum: of W.
        seed: of whatever is drawn.
    """

    weight: Tensor
    spectrum: Spectrum
    seed: int = 0


@dataclass(frozen=True)
class Windows:
    """A matrix under windows whose size is the same for all matrices of a model.

    Attributes:
        weight: W (out, in), or the filters of a convolution (out, in, height, width); finite.
        side: of the windows, which are square.
    """

    weight: Tensor
    side: int


def common_window(shapes: Iterable[Sequence[int]], largest: int = 512) -> int | None:
    """The side of square windows that fit all matrices on which a tail can be fitted; None where there are none."""
    shorter = [min(shape) for shape in shapes if min(shape) >= LEAST]
    return min(largest, *shorter) if shorter else None


Triples = tuple[Tensor, Tensor, Tensor]
"""U (out, k), s (k,) and V^T (k, in), in float64."""


@dataclass(frozen=True)
class Change:
    """A matrix and what it came from.

    Attributes:
        base: W (out, in), finite and not zero.
        tuned: W + dW, of the same shape, finite and not zero.

    Raises:
        Refused: matrices that are not so.
    """

    base: Tensor
    tuned: Tensor

    def __post_init__(self) -> None:
        check(self.base)
        check(self.tuned)
        if self.base.shape != self.tuned.shape:
            raise Refused(f"a base of shape {tuple(self.base.shape)} does not go with {tuple(self.tuned.shape)}")
        if not (self.base.any() and self.tuned.any()):
            raise Refused("a zero matrix has no singular vectors")

    @cached_property
    def before(self) -> Triples:
        """The singular triples of `base`."""
        return _triples(self.base)

    @cached_property
    def after(self) -> Triples:
        """The singular triples of `tuned`."""
        return _triples(self.tuned)


def _triples(matrix: Tensor) -> Triples:
    u, s, vt = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
    return u, s, vt


@dataclass(frozen=True)
class Pairs:
    """Two sets whose rows pair, by the mean of their features and of the products of these.

    Attributes:
        joint: mean of f f^T over the pairs, f = (features of the first, features of the second), float64.
        mean: of f.
        split: how many of the features are of the first.
        count: pairs.
    """

    joint: Tensor
    mean: Tensor
    split: int
    count: int

    @classmethod
    def gathered(cls, parts: Iterable[tuple[Tensor, Tensor]]) -> Pairs:
        """From features that come some pairs at a time, (k, d) and (k, e), at least one pair: O(n (d + e)^2)."""
        n, d, joint, sums = 0, 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for first, second in parts:
            part = torch.cat([first.double(), second.double()], 1)
            n, d = n + len(part), first.shape[1]
            joint, sums = part.T @ part + joint, part.sum(0) + sums
        return cls(joint / n, sums / n, d, n)


@dataclass(frozen=True)
class Timings:
    """Products of matrices and the seconds they took on one machine."""

    products: Sequence[Timed]


SUBJECTS: dict[str, type] = {
    "matrix": Matrix,
    "eigenvalues": Spectrum,
    "windows": Windows,
    "change": Change,
    "hidden states": Tensor,
    "pairs": Pairs,
    "timings": Timings,
    "examples": Examples,
    "curvature": Curvature,
    "pool": Pool,
}
"""What diagnostics are about, and what each is given.

`eigenvalues` are all those of a matrix, which there are not where its spectrum is a density; `windows` there are not
where no matrix is large enough; hidden states are those of one layer, (tokens, d). What is no part of a model (timings,
examples, a curvature, a pool) is given to `DIAGNOSTICS[NAME].entry`.
"""

MATRIX_SUBJECTS = ("change", "windows", "eigenvalues", "matrix")
"""Those whose numbers stand in the row of a matrix, the most telling first."""

SHOWN = 4
"""Columns that the table of diagnostics names of each."""

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
        doubt: (subject, numbers) -> what makes these say less than they seem to, in words; "" where nothing does.
    """

    family = "diagnostics"

    entry: Look
    of: str
    gives: Mapping[str, Column]
    noun: str
    doubt: Callable[[Any, Numbers], str]

    @property
    def words(self) -> str:
        """The docstring of `entry` without its summary, and what each column is."""
        listed = "\n".join(f"- `{name}`: {column.about}." for name, column in self.gives.items())
        return f"{super().words}\n\nIt gives\n\n{listed}".strip()

    def columns(self) -> dict[str, str]:
        """The card's row in the table of diagnostics, by heading."""
        first, more = list(self.gives)[:SHOWN], len(self.gives) - SHOWN
        gives = ", ".join(first) + (f" and {more} more" if more > 0 else "")
        return {"of": self.of, "what it does": self.summary, "gives": gives, "paper": self.paper}


DIAGNOSTICS = REGISTER = Register(DiagnosticCard, "diagnostic", "eckart.diagnose, or eckart diagnose")
"""The cards of all diagnostics, by name."""


def diagnostic(
    name: str,
    *,
    paper: str,
    of: str,
    gives: Mapping[str, Column],
    noun: str = "",
    doubt: Callable[[Any, Numbers], str] = lambda subject, numbers: "",
    unmeasured: str = "",
) -> Callable[[L], L]:
    """Registers a function as a diagnostic. See `DiagnosticCard` for the arguments; `noun` is the name if left out."""
    if of not in SUBJECTS:
        raise ValueError(f"diagnostic {name!r} is of {of!r}; there are {', '.join(SUBJECTS)}")

    def register(entry: L) -> L:
        card = DiagnosticCard(
            name=name,
            paper=paper,
            entry=entry,
            of=of,
            gives=gives,
            noun=noun or name,
            doubt=doubt,
            unmeasured=unmeasured,
        )
        DIAGNOSTICS.add(card)
        return entry

    return register


def diagnostics_of(*subjects: str) -> list[DiagnosticCard]:
    """The cards of some subjects, in the order in which these are named."""
    cards = [DIAGNOSTICS[name] for name in DIAGNOSTICS]
    return [card for subject in subjects for card in cards if card.of == subject]


def columns_of(*subjects: str) -> dict[str, Column]:
    """Every column of the diagnostics of some subjects, by name."""
    return {name: column for card in diagnostics_of(*subjects) for name, column in card.gives.items()}


def look(card: DiagnosticCard, subject: object) -> tuple[Numbers, list[str]]:
    """The numbers of a diagnostic, none where it refuses, and notes on what is missing or says little."""
    try:
        numbers = card.entry(subject)
    except Refused as error:
        return {}, [f"no {card.noun}: {error}"]
    doubt = card.doubt(subject, numbers)
    return numbers, [doubt] if doubt else []
