"""The families of papers: a register of each, and a card for each paper."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from pkgutil import iter_modules
from typing import Any, ClassVar, Generic, TypeVar

from eckart.errors import Refused

FAMILIES = {
    "compressors": "eckart.compressors",
    "adapters": "eckart.adapters",
    "diagnostics": "eckart.diagnostics",
    "inference": "eckart.inference",
    "parametrizations": "eckart.parametrizations",
    "optim": "eckart.optim",
    "estimators": "eckart.estimators",
    "kernels": "eckart.kernels",
    "sketching": "eckart.sketching",
    "layers": "eckart.layers",
}
"""The package of each family; its module `contract` says what a paper is there, and holds its `REGISTER`."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A paper, what it does, and what was measured of it; a family's card adds fields of its own.

    Attributes:
        name: what the user types.
        paper: authors, year, arXiv number or where else it is.
        entry: the function that the family's contract asks for; its docstring is the card's text.
        expression: what it makes, in the algebra of structures; `*` marks what trains.
        unmeasured: why no benchmark has a row for it; "" where one has.
    """

    family: ClassVar[str]

    name: str
    paper: str
    entry: Callable[..., Any]
    expression: str = ""
    unmeasured: str = ""

    @property
    def summary(self) -> str:
        """The first line of the docstring of `entry`."""
        return (self.entry.__doc__ or "").strip().split("\n")[0]

    @property
    def words(self) -> str:
        """The docstring of `entry` without its summary and its sections for programmers."""
        text = inspect.cleandoc(self.entry.__doc__ or "").split("\nArgs:\n")[0].split("\nRaises:\n")[0]
        return text.partition("\n")[2].strip()

    @property
    def measured(self) -> dict[str, list[str]]:
        """What benchmarks measured, a line each, by the conditions under which they did."""
        found = measured(self.family)
        rows: Mapping[str, list[str]] = found["rows"].get(self.name, {})
        return {found["conditions"][where]: lines for where, lines in rows.items()}

    def columns(self) -> dict[str, str]:
        """The card's row in the table of its family, by heading."""
        return {"what it does": self.summary, "makes": self.expression, "paper": self.paper}


C = TypeVar("C", bound=Card)


class Register(Mapping[str, C], Generic[C]):
    """The cards of a family by name; a paper's file is imported when its card is asked for.

    Args:
        card: the family's kind of card.
        noun: what a paper of the family is called.
        door: how one of its papers is put to use, for whoever tried elsewhere; `{name}` stands for its name.
    """

    def __init__(self, card: type[C], noun: str, door: str) -> None:
        self.family, self.noun, self.door = card.family, noun, door
        self._cards: dict[str, C] = {}

    def add(self, card: C) -> None:
        """Enters a card; ValueError where there is one of that name."""
        if card.name in self._cards:
            raise ValueError(f"{self.noun} {card.name!r} is registered twice")
        self._cards[card.name] = card

    def find(self, name: str) -> C:
        """The card of that name.

        Raises:
            Refused: there is none; the text lists those that there are, or names the family that has it.
        """
        if name in self:
            return self[name]
        for family in FAMILIES:
            other = register_of(family)
            if other is not self and name in other:
                door = other.door.format(name=name)
                raise Refused(f"{name!r} is no {self.noun} but {_article(other.noun)}: {door}")
        raise Refused(f"unknown {self.noun} {name!r}; {near(name, self)}there are {', '.join(self)}")

    def __getitem__(self, name: str) -> C:
        if name not in self._cards and isinstance(name, str):
            self._import(name)
        return self._cards[name]

    def __iter__(self) -> Iterator[str]:
        for module in self._files():
            import_module(module)
        return iter(sorted(self._cards))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{self.family}: {', '.join(self)}>"

    def _files(self) -> list[str]:
        """The modules of the family that are papers, by their full names."""
        package = FAMILIES[self.family]
        names = (module.name for module in iter_modules(import_module(package).__path__))
        return [f"{package}.{name}" for name in names if not name.startswith("_") and name != "contract"]

    def _import(self, name: str) -> None:
        """Imports the file that is called as the name begins, the longest such first; then the others."""
        wanted = f"{FAMILIES[self.family]}.{name.replace('-', '_')}"
        for module in sorted(self._files(), key=lambda file: len(file) if wanted.startswith(file) else 0, reverse=True):
            import_module(module)
            if name in self._cards:
                return


def near(name: str, names: Sequence[str] | Mapping[str, object]) -> str:
    """A question that offers the nearest of some names, with a space at its end; "" where none is near."""
    found = difflib.get_close_matches(str(name).lower(), list(names), 1)
    return f"did you mean {found[0]!r}? " if found else ""


def register_of(family: str) -> Register[Any]:
    """The register of a family.

    Raises:
        Refused: there is no such family.
    """
    if family not in FAMILIES:
        raise Refused(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    register: Register[Any] = import_module(f"{FAMILIES[family]}.contract").REGISTER
    return register


@cache
def measured(family: str) -> dict[str, Any]:
    """`conditions` in words, by a short name, and `rows`: for each paper its results under each of them."""
    text = (resources.files("eckart") / "measured" / f"{family}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
