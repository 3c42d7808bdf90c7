"""Tables of the terminal: what they show of a report, and names with markup in them."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from eckart.cli.tables import summary_table
from support.reports import realistic


def test_summary_table_shows_what_was_measured() -> None:
    def shown(value: dict[str, Any]) -> str:
        console = Console(width=120, record=True, file=None, quiet=False, force_terminal=False)
        with console.capture() as capture:
            console.print(summary_table(value))
        return capture.get()

    text = shown({**realistic(), "model": "[bold]not markup[/bold]"})
    for part in (
        "[bold]not markup[/bold]",
        "linear parameters",
        "32.71 ± 0.61",
        "43.12 ± 0.84",
        "macs",
        "prefill",
        "decode",
    ):
        assert part in text
    for change in (43.12 / 32.71, 263.5 / 212.0, 17.9 / 14.2):
        assert f"{change - 1:+.1%}" in text
    little = realistic(layers=1)
    for name in ("quality", "speed"):
        little[name] = None
    assert "perplexity" not in shown(little)
    assert "tokens/s" not in shown(little)
