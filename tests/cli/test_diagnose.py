"""`eckart diagnose` on the command line: what it prints is what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eckart.cli.app import main


def test_json_is_what_is_written(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = ["diagnose", str(llama_directory), "--text", texts[0], "--samples", "8", "--length", "32"]
    assert main([*line, "--measure", "90%,0.7", "--out", str(out), "--json", "-q"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report == json.loads((out / "diagnosis.json").read_text())
    assert [row["keep"] for row in report["measured"]] == pytest.approx([0.9, 0.7], abs=0.03)
    assert shown.err == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--measure", "0.9;0.7", "--text", "news"], "--measure 0.9;0.7: a share is needed, as in 0.8 or 80%"),
        (["--memory", "0"], "memory=0.0 is no number of GB above 0"),
        (["--sample", "3"], "unknown option --sample; did you mean '--samples'?"),
    ],
)
def test_refusals(options: list[str], says: str, llama_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(llama_directory), *options]) == 2
    assert says in capsys.readouterr().err
