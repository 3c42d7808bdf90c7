"""`eckart adapt` on the command line: what it prints is what it writes, and what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eckart.cli.app import main


def test_json_is_what_is_written(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["adapt", str(llama_directory), "--data", texts[0], "--eval", "none", "--length", "32"]
    out = tmp_path / "out"
    how = ["--rank", "2", "--steps", "2", "--rate", "1e-2", "--clip", "0.5", "--every", "1", "--include", "q_proj"]
    assert main([*line, *how, "--out", str(out), "--json", "-q"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report == json.loads((out / "training.json").read_text())
    assert shown.err == ""
    trained = {"steps": 2, "rate": 0.01, "batch": 4, "decay": 0.0, "clip": 0.5, "every": 1, "seed": 0}
    assert report["training"] == trained
    assert {row["name"].rpartition(".")[2] for row in report["matrices"]} == {"q_proj"}


def test_a_compressor_is_no_adapter(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["adapt", str(llama_directory), "--data", texts[0], "--out", str(tmp_path / "out"), "--method", "svd"]
    assert main(line) == 2
    assert "'svd' is no adapter but a compressor: eckart.compress, or" in capsys.readouterr().err
