"""Tables in Markdown from rows: which rows, what is on the left, what goes across.

A format is text with `{field}` or `{field:how}` in it, a field of a row or `a.b` for one inside another; a stretch in
square brackets is left out where one of its fields is missing, and a cell is empty where another one is. Text in a row
stands as it is, whatever `how` says: it was printed to fewer digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.rows import Row

Heads = Sequence[tuple[str, str]]
"""Headings, each with the format of what stands below it."""


PLAIN = ("dense", "dropping experts", "none", "the frozen layer")
"""What stands in a column of methods without being one."""


def code(name: str) -> str:
    """A method's name as code, one of PEFT's with its owner; what is no method's name as it is."""
    if name.startswith("peft:"):
        return f"PEFT's `{name.removeprefix('peft:')}`"
    return name if name in PLAIN else f"`{name}`"


def perplexity(value: float) -> str:
    """Two digits behind the point, or in all where it is beyond use."""
    if value < 1e4:
        return f"{value:.2f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


HOW: dict[str, Callable[[Any], str]] = {
    "code": code,
    "card": lambda name: name.removeprefix("peft:"),
    "whose": lambda name: " by PEFT's own" if name.startswith("peft:") else "",
    "perplexity": perplexity,
    "turned": lambda rotated: "rotated first" if rotated else "as it is",
    "%": lambda share: f"{100 * share:.0f} %",
    "%1": lambda share: f"{100 * share:.1f} %",
    "+%": lambda share: f"{100 * share:+.0f} %",
    "power": lambda value: f"{value:.0e}".replace("e-0", "e-") if value else "0",
    "short": lambda value: f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+"),
}
TEXT_TOO = {"code", "card", "whose"}

_FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")


class Missing(KeyError):
    """A row has no such field."""


def value_of(fields: Mapping[str, Any], path: str) -> Any:
    """A field, or one inside another.

    Raises:
        Missing: there is none, or it is None.
    """
    found: Any = fields
    for name in path.split("."):
        if not isinstance(found, Mapping) or found.get(name) is None:
            raise Missing(path)
        found = found[name]
    return found


def shown(pattern: str, fields: Mapping[str, Any]) -> str:
    """A format filled in; "" where a field outside of brackets is missing."""

    def fill(text: str) -> str:
        return _FIELD.sub(lambda match: _formatted(value_of(fields, match[1]), match[2] or ""), text)

    def optional(match: re.Match[str]) -> str:
        try:
            return fill(match[1])
        except Missing:
            return ""

    try:
        return fill(_OPTIONAL.sub(optional, pattern))
    except Missing:
        return ""


def _formatted(value: Any, how: str) -> str:
    if isinstance(value, str) and how not in TEXT_TOO:
        return value
    return HOW[how](value) if how in HOW else format(value, how)


def selected(rows: Sequence[Row], select: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields of the rows that have all of these values; a tuple offers several, None is a field that is missing."""
    for row in rows:
        fields = row.fields
        if all(_matches(fields.get(name), wanted) for name, wanted in select.items()):
            yield fields


def _matches(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, tuple) else value == wanted


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        family: whose rows it is made from.
        select: which of them, see `selected`.
        left: the columns on the left; rows that agree in them share a line.
        across: the columns that differ from row to row, headings being formats too; those of one heading are one
            column, and columns and lines without any cell are left out.
        right: columns behind them: what the rows of a line give one behind the other, once where all give the same.
    """

    family: str
    select: Mapping[str, Any]
    left: Heads
    across: Heads = ()
    right: Heads = ()

    def markdown(self, rows: Sequence[Row]) -> str:
        """The table; ValueError where no row belongs to it, or two give one cell."""
        lines: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for fields in selected(rows, self.select):
            lines.setdefault(tuple(shown(pattern, fields) for _, pattern in self.left), []).append(fields)
        if not lines:
            raise ValueError(f"no row of {self.family} has {self.select}")
        cells = {left: self._across(members) for left, members in lines.items()}
        if self.across:
            lines = {left: members for left, members in lines.items() if cells[left]}
        heads = list(dict.fromkeys(head for found in cells.values() for head in found))
        body = [[head for head, _ in self.left] + heads + [head for head, _ in self.right]]
        for left, members in lines.items():
            if not self.across and len(members) > 1:
                raise ValueError(f"two rows of {self.family} give one line: {left}")
            right = (_joined([shown(pattern, member) for member in members]) for _, pattern in self.right)
            body.append([*left, *(cells[left].get(head, "") for head in heads), *right])
        first, *others = ("| " + " | ".join(line) + " |" for line in body)
        return "\n".join([first, "|" + "---|" * len(body[0]), *others])

    def _across(self, members: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        found: dict[str, str] = {}
        for fields in members:
            for head, pattern in self.across:
                cell, title = shown(pattern, fields), shown(head, fields)
                if cell and found.setdefault(title, cell) != cell:
                    raise ValueError(f"two rows of {self.family} give one cell below {title}: {found[title]}, {cell}")
        return found


def _joined(cells: Sequence[str]) -> str:
    found = [cell for cell in cells if cell]
    return ", ".join(found[:1] if len(set(found)) == 1 else found)
