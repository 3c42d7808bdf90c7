"""`eckart export`: what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from eckart.cli.app import main
from support.commands import nothing_left


def test_export(run: Callable[..., int], tmp_path: Path, llama_directory: Path, capsys: Any) -> None:
    assert run(tmp_path / "small", "--eval", "none") == 0
    assert main(["export", str(tmp_path / "small"), "--to", "dense", "--out", str(tmp_path / "dense")]) == 0
    ids = torch.arange(20)[None]
    small, dense = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("small", "dense"))
    torch.testing.assert_close(dense(ids).logits, small(ids).logits, rtol=1e-3, atol=1e-3)
    capsys.readouterr()
    for model, out, message in (
        (llama_directory, tmp_path / "x", "has no structured matrices; it is dense already"),
        (tmp_path / "small", tmp_path / "dense", "exists and is not empty"),
        (tmp_path / "nowhere", tmp_path / "x", "there is no directory"),
    ):
        assert main(["export", str(model), "--to", "dense", "--out", str(out)]) == 2
        assert message in capsys.readouterr().err.replace("\n", "")
    assert nothing_left(tmp_path / "x")
