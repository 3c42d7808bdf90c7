"""What a command prints when it is done: tables and lines, or one JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from eckart.cli.consoles import console
from eckart.cli.options import Talk
from eckart.report.html import to_json


def show(talk: Talk, report: Mapping[str, Any], tables: Iterable[RenderableType], lines: Iterable[str] = ()) -> None:
    """Prints a report on the output: as JSON and nothing else if so asked, else as tables and lines.

    Args:
        talk: how much is said.
        report: what is printed as JSON; its `seconds` by phase are said where much is.
        tables: what is printed else.
        lines: below the tables.
    """
    seconds = report.get("seconds")
    if talk.verbose and not talk.quiet and isinstance(seconds, Mapping):
        console(stderr=True).print(
            "; ".join(f"{phase} {value:.1f} s" for phase, value in seconds.items()), highlight=False
        )
    if talk.json:
        console().out(to_json(report, indent=1), highlight=False)
        return
    output = console()
    for table in tables:
        output.print(table)
    for line in lines:
        output.print(Text(line), soft_wrap=True)


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """A line for each warning of a report, and one that says what was looked at."""
    said = report.get("warnings", ())
    sentence = (report.get("coverage") or {}).get("sentence")
    lines = [f"warning: {warning}" for warning in said]
    return lines if sentence is None or sentence in said else [sentence, *lines]
