"""`eckart embeddings` on the command line: the table, and the same numbers as JSON in a file or on the output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eckart.cli.app import main


def test_json_in_a_file_or_on_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    np.save("images.npy", draw.normal(size=(40, 6)))
    np.save("texts.npy", draw.normal(size=(40, 4)))
    assert main(["embeddings", "images.npy", "texts.npy", "--json", "numbers.json", "-q"]) == 0
    shown = capsys.readouterr()
    assert "wrote numbers.json" in shown.out
    assert shown.err == ""
    assert main(["embeddings", "images.npy", "texts.npy", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("numbers.json").read_text())
    assert not Path("-").exists()
