"""Where results and progress go: moving bars to terminals alone, and no codes into notebooks and logs."""

from __future__ import annotations

import io
import sys

import pytest
from rich.table import Table

from eckart.cli.consoles import is_live
from eckart.cli.options import Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SURROUNDINGS = {
    "pipe": ({}, io.StringIO),
    "log with colours": ({"FORCE_COLOR": "1"}, io.StringIO),
    "cell with a terminal": ({"JPY_PARENT_PID": "7", "TERM": "xterm-color"}, Terminal),
    "cell with colours": ({"JPY_PARENT_PID": "7", "FORCE_COLOR": "1"}, Terminal),
    "dumb terminal": ({"TERM": "dumb"}, Terminal),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_nothing_moves_where_it_would_be_seen_as_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings, stream = SURROUNDINGS[name]
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TERM", "JPY_PARENT_PID", "COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in surroundings.items():
        monkeypatch.setenv(variable, value)
    output, errors = stream(), stream()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    assert not is_live(sys.stderr)
    with bars(Talk()) as progress:
        for done in range(3):
            progress("fit", done, 2)
    table = Table(title="of numbers")
    table.add_row("one")
    show(Talk(), {"seconds": {}}, [table], ["a line"])
    # Colours where they are asked for, but neither moves of the cursor nor lines that are erased.
    assert "fit: 2 done" in errors.getvalue().replace("\x1b[1;36m", "").replace("\x1b[0m", "")
    assert "a line" in output.getvalue()
    for text in (output.getvalue(), errors.getvalue()):
        assert not any(code in text for code in ("\x1b[2K", "\x1b[1A", "\x1b[?25l", "\r"))
        assert "\x1b" not in text or name == "log with colours"


def test_bars_move_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", errors := Terminal())
    with bars(Talk()) as progress:
        progress("fit", 2, 2)
    assert "\x1b[?25l" in errors.getvalue()
    assert "done in" not in errors.getvalue()
