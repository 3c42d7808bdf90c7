"""`eckart compensate` on the command line: what it prints is what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eckart.cli.app import main
from support.commands import SMALL


def test_json_is_what_is_written(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--calibration", texts[0], "--eval", texts[1], *SMALL]
    small, out = str(tmp_path / "small"), tmp_path / "out"
    assert main(["compress", str(llama_directory), "--out", small, "--method", "svd", "--no-speed", *given]) == 0
    capsys.readouterr()
    line = ["compensate", small, "--against", str(llama_directory), "--out", str(out), "--rank", "2", *given]
    assert main([*line, "--json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((out / "compensation.json").read_text())
    assert shown.err == ""
    assert main([*line, "--memory", "-1"]) == 2
    assert "memory=-1.0 is no number of GB above 0" in capsys.readouterr().err
