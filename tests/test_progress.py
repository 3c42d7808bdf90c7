"""Progress that is drawn where someone looks on: in a terminal and a notebook, and nowhere else."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from eckart import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def phases() -> None:
    """A job of two phases, the second of which breaks off and is begun anew."""
    for done in range(4):
        progress.shown("statistics", done, 3)
    progress.shown("fit", 1, 9)
    progress.shown("fit", 2, 9)
    for done in range(4):
        progress.shown("build", done, 3)


@pytest.fixture(autouse=True)
def new_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE", progress._Line())
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.0)


def screen(written: str) -> str:
    """What a terminal shows of a line that was drawn over and over."""
    line: list[str] = []
    at = 0
    for letter in written:
        if letter == "\r":
            at = 0
            continue
        line[at : at + 1] = [letter]
        at += 1
    return "".join(line)


def test_nothing_is_written_where_nobody_looks_on(capsys: pytest.CaptureFixture[str]) -> None:
    phases()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_one_line_that_is_erased(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    phases()
    written = terminal.getvalue()
    assert not any(letter < " " and letter != "\r" for letter in written)
    for part in ("statistics 1/3", "fit 2/9", "s left"):
        assert part in written
    assert screen(written).strip() == ""
    progress.shown("fit", 1, 9)
    assert screen(terminal.getvalue()).rstrip().startswith("fit 1/9")


def test_short_phases_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    phases()
    assert terminal.getvalue() == ""


def test_a_cell_has_one_line_for_all_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []

    class Handle:
        def __init__(self, text: str) -> None:
            shown.append([text])

        def update(self, data: dict[str, str], raw: bool) -> None:
            shown[-1].append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        return Handle(data["text/plain"])

    shell = SimpleNamespace(kernel=object(), execution_count=1)
    modules: dict[str, Any] = {
        "IPython": SimpleNamespace(get_ipython=lambda: shell),
        "IPython.display": SimpleNamespace(display=display),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    phases()
    phases()
    assert len(shown) == 1
    assert shown[0][-1] == ""
    shell.execution_count = 2
    phases()
    assert len(shown) == 2
    assert not any("\x1b" in text or "\r" in text for texts in shown for text in texts)


def test_importing_eckart_loads_neither_rich_nor_torch_nor_ipython() -> None:
    program = "import sys, eckart; print(sorted({'rich', 'torch', 'IPython', 'cyclopts'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
