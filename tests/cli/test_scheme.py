"""A size of every matrix, said on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from eckart.report import schema
from support.commands import report_of


def test_the_command_line(
    run: Callable[..., int], tmp_path: Path, llama_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(out, "--method", "rtn", "--bits", "4", "--group", "32", "--symmetric") == 0
    report = report_of(out)
    jsonschema.validate(report, schema())
    assert report["requested"] == {"counts": "bits", "each": 4, "group": 32, "symmetric": True}
    assert report["allocation"] is None
    assert {site["bits"] for site in report["sites"]} == {4}
    words = " ".join(report["command"])
    assert all(word in words for word in ("--bits 4", "--group 32", "--symmetric"))
    assert not {"--keep", "--of"} & set(report["command"])
    assert "give every matrix" in (out / "report.html").read_text()
    capsys.readouterr()
    assert run(tmp_path / "other", "--method", "rtn", "--bits", "4", "--keep", "0.5") == 2
    assert "name one" in capsys.readouterr().err
    assert run(tmp_path / "other", "--method", "rtn", "--bits", "4", "--max-loss", "0.5") == 2
    assert "name one" in capsys.readouterr().err
    assert run(tmp_path / "other", "--method", "svd", "--bits", "4") == 2
    assert "'svd' is not asked for by bits=4 but by rank=" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert run(tmp_path / "dry", "--method", "rtn", "--bits", "4", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["requested"] == {"counts": "bits", "each": 4}
    assert run(tmp_path / "dry", "--method", "rtn", "--bits", "4", "--dry-run") == 0
    assert "bits 4 for every matrix" in capsys.readouterr().out
