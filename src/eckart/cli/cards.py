"""What `eckart methods` prints: a table for each family of papers, or the card of one paper."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from eckart.errors import Refused
from eckart.register import FAMILIES, Card, near, register_of

READABLE = 22
"""Columns of the terminal that a column of a table needs."""


def table(family: str, width: int) -> Table:
    """The papers of a family, a row for each; only the first columns of its table where the width has no room for all.

    Args:
        family: a name in `FAMILIES`.
        width: of the terminal.
    """
    register = register_of(family)
    cards = [register[name] for name in register]
    room = max(1, (width - max(map(len, register)) - 4) // READABLE)
    shown = Table(title=family, title_justify="left")
    shown.add_column(register.noun, no_wrap=True)
    for heading in list(cards[0].columns())[:room]:
        shown.add_column(heading, overflow="fold")
    for card in cards:
        shown.add_row(card.name, *list(card.columns().values())[:room])
    return shown


def entries(family: str) -> list[dict[str, str]]:
    """The cards of a family as rows of their table, for JSON."""
    register = register_of(family)
    return [{"name": name, **register[name].columns()} for name in register]


def text_of(card: Card) -> str:
    """Paper, words and measured results of a paper, in Markdown."""
    lines = [f"*{card.paper}*", "", f"{card.summary}\n\n{card.words}".strip()]
    for conditions, rows in card.measured.items():
        lines += ["", f"Measured ({conditions}):", "", *(f"- {row}" for row in rows)]
    if card.unmeasured:
        lines += ["", f"Not measured: {card.unmeasured}"]
    return "\n".join(lines)


def cards_of(name: str) -> list[Card]:
    """The cards of that name, of whatever families have one.

    Raises:
        Refused: none has.
    """
    found: list[Card] = [register_of(family)[name] for family in FAMILIES if name in register_of(family)]
    if not found:
        names = sorted({name for family in FAMILIES for name in register_of(family)})
        if family := near(name, FAMILIES).removesuffix("? "):
            raise Refused(f"{name!r} is no method, and no family of methods; {family}? see eckart methods --help")
        raise Refused(f"unknown method {name!r}; {near(name, names)}there are {', '.join(names)}")
    return found


def printed(card: Card) -> str:
    """A card for the terminal, whose paragraphs are as wide as that."""
    makes = f", {card.expression}" if card.expression else ""
    paragraphs = text_of(card).split("\n\n")
    flowing = [text if text.startswith((" ", "- ")) else " ".join(text.split("\n")) for text in paragraphs]
    return "\n\n".join([f"{card.name} ({card.family}){makes}\n{flowing[0]}", *flowing[1:]])


def document(card: Card) -> dict[str, Any]:
    """A card for JSON."""
    return {
        "name": card.name,
        "family": card.family,
        **card.columns(),
        "words": card.words,
        "measured": card.measured,
        "unmeasured": card.unmeasured,
    }
