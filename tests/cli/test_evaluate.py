"""`eckart evaluate`: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eckart.cli.app import main
from eckart.jobs.evaluate.speed import weight_bytes
from support.commands import report_of
from support.tiny import CONTEXT


def test_evaluate(
    run: Callable[..., int], tmp_path: Path, llama_directory: Path, texts: tuple[str, str], capsys: Any
) -> None:
    out = tmp_path / "out"
    assert run(out) == 0
    expected = report_of(out)["quality"]
    capsys.readouterr()
    options = ["--text", texts[1], "--samples", "3", "--length", "32"]
    assert main(["evaluate", str(out), "--against", str(llama_directory), *options, "--no-speed"]) == 0
    result = json.loads(capsys.readouterr().out)
    for field in ("kl", "top1_agreement", "tokens"):
        assert result["quality"][field] == pytest.approx(expected[field], rel=1e-4)
    assert result["quality"]["after"]["mean"] == pytest.approx(expected["after"]["mean"], rel=1e-5)
    assert result["quality"]["before"]["mean"] == pytest.approx(expected["before"]["mean"], rel=1e-5)
    assert result["bytes"] == weight_bytes(out)
    assert "speed" not in result


def test_evaluate_refuses(llama_directory: Path, texts: tuple[str, str], capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    for options, message in (
        (["--text", "nowhere.txt"], "there is no text file 'nowhere.txt'"),
        (["--text", str(tmp_path / "short.txt")], "tokens and one sequence needs 256"),
        (["--text", str(tmp_path / "binary.txt")], "binary.txt is a binary file"),
        (["--text", str(tmp_path)], "is a directory; name one text file"),
        (["--text", texts[0], "--samples", "0"], "count 0"),
        (
            ["--text", texts[0], "--length", "513"],
            f"513 tokens do not fit the model's context of {CONTEXT}",
        ),
        (["--text", texts[0], "--against", "/nonexistent"], "there is no directory /nonexistent"),
    ):
        assert main(["evaluate", str(llama_directory), "--no-speed", *options]) == 2
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.out == ""
