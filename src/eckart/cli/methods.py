"""`eckart methods`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from eckart.cli.cards import cards_of, document, entries, printed, table
from eckart.cli.consoles import console
from eckart.cli.options import Json, Talk
from eckart.cli.results import show
from eckart.register import FAMILIES


def methods(
    name: Annotated[
        str | None, Parameter(help=f"a family ({', '.join(FAMILIES)}) for its table, or a method for its card")
    ] = None,
    /,
    *,
    json: Json = False,
) -> int:
    """Lists the published methods there are, a table for each family, or prints the card of one."""
    if name is None or name in FAMILIES:
        families = [name] if name else list(FAMILIES)
        width = console().width
        tables = [table(family, width) for family in families]
        show(Talk(json=json), {family: entries(family) for family in families}, tables)
        return 0
    cards = cards_of(name)
    text = Text("\n\n".join(printed(card) for card in cards))
    show(Talk(json=json), {"methods": [document(card) for card in cards]}, [text])
    return 0
