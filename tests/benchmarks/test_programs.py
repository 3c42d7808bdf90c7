"""Every program of the benchmarks can be started, says what it does, and keeps rows."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import benchmarks.common.rows

ROOT = Path(benchmarks.common.rows.__file__).parent.parent
PROGRAMS = sorted(
    ".".join(("benchmarks", *file.relative_to(ROOT).with_suffix("").parts))
    for file in ROOT.glob("*/*.py")
    if "__main__" in file.read_text("utf-8") and file.parent.name != "pages"
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_tells_of_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Some set these where nobody else has.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"python -m {name}" in shown
    assert "--json FILE" in shown
