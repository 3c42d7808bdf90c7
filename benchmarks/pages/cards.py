"""What the cards of papers say was measured: lines of text from rows, by the conditions under which they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.rows import Row
from benchmarks.pages.tables import selected, shown

Card = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Lines:
    """A line on a card for each row of a kind; formats are those of `tables`.

    Attributes:
        family: whose rows, and whose cards.
        where: short name of the conditions.
        conditions: format of the conditions in words, filled in by the first row that `about` selects.
        select: the rows, see `selected`.
        line: format of a line.
        about: `select` where it is empty.
        name: format of the card's name.
        together: what joins the lines of a card to one; "" keeps them apart.
        words: what a joined line begins with.
    """

    family: str
    where: str
    conditions: str
    select: Mapping[str, Any]
    line: str
    about: Mapping[str, Any] | None = None
    name: str = "{method:card}"
    together: str = ""
    words: str = ""

    def title(self, rows: Sequence[Row]) -> str:
        """The conditions in words; ValueError where no row tells them."""
        for fields in selected(rows, self.select if self.about is None else self.about):
            return shown(self.conditions, fields)
        raise ValueError(f"no row of {self.family} has {self.about or self.select}")

    def of(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """The lines of each card."""
        found: dict[str, list[str]] = {}
        for fields in selected(rows, self.select):
            line = shown(self.line, fields)
            if line:
                found.setdefault(shown(self.name, fields), []).append(line)
        if self.together:
            return {name: [self.words + self.together.join(lines)] for name, lines in found.items()}
        return found


def cards(family: str, kinds: Sequence[Lines], rows: Sequence[Row]) -> dict[str, Any]:
    """What src/eckart/measured/FAMILY.json holds; an earlier kind's lines stand first.

    Raises:
        ValueError: two kinds of one `where` are of other conditions.
    """
    conditions: dict[str, str] = {}
    found: Card = {}
    for kind in kinds:
        if kind.family == family:
            title = kind.title(rows)
            if conditions.setdefault(kind.where, title) != title:
                raise ValueError(f"{kind.where!r} of {family} is both {conditions[kind.where]!r} and {title!r}")
            for name, lines in kind.of(rows).items():
                found.setdefault(name, {}).setdefault(kind.where, []).extend(lines)
    return {"conditions": conditions, "rows": {name: found[name] for name in sorted(found)}}
