"""What `eckart methods` prints: a table for each family of papers, or the card of one paper."""

from __future__ import annotations

from rich.table import Table

from eckart.errors import Refused
from eckart.register import FAMILIES, Card, near, register_of


def tables(families: list[str] | None = None) -> list[Table]:
    """A table of each family, all of them if none is named."""
    return [_table(family) for family in families or FAMILIES]


def _table(family: str) -> Table:
    register = register_of(family)
    cards = [register[name] for name in register]
    table = Table(register.noun, *cards[0].columns())
    for card in cards:
        table.add_row(card.name, *card.columns().values())
    return table


def text_of(card: Card) -> str:
    """Paper, words and measured results of a paper, in Markdown."""
    lines = [f"*{card.paper}*", "", f"{card.summary}\n\n{card.words}".strip()]
    for conditions, rows in card.measured.items():
        lines += ["", f"Measured ({conditions}):", "", *(f"- {row}" for row in rows)]
    if card.unmeasured:
        lines += ["", f"Not measured: {card.unmeasured}"]
    return "\n".join(lines)


def printed(name: str) -> str:
    """The cards of that name, of whatever families have one.

    Raises:
        Refused: none has.
    """
    found = [register_of(family)[name] for family in FAMILIES if name in register_of(family)]
    if not found:
        names = sorted({name for family in FAMILIES for name in register_of(family)})
        raise Refused(f"unknown method {name!r}; {near(name, names)}there are {', '.join(names)}")
    return "\n\n".join(f"{card.name} ({card.family}), {card.expression}\n{text_of(card)}" for card in found)
