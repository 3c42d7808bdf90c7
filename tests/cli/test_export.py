"""`eckart export`: what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from eckart.cli.app import main
from eckart.models import transformers
from eckart.models.transformers import load
from support.commands import nothing_left


def test_export(run: Callable[..., int], tmp_path: Path, llama_directory: Path, capsys: Any) -> None:
    assert run(tmp_path / "small", "--eval", "none") == 0
    capsys.readouterr()
    logging.enable_progress_bar()
    assert main(["export", str(tmp_path / "small"), "--to", "dense", "--out", str(tmp_path / "dense")]) == 0
    assert capsys.readouterr().err.replace("\n", "") == f"wrote {tmp_path / 'dense'}"
    assert logging.is_progress_bar_enabled()
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


def test_a_gguf_file_becomes_a_dense_directory(
    tmp_path: Path, llama_directory: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(str(llama_directory))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(transformers, "_load_gguf", lambda path, dtype: (whole.model, whole.processor))
    assert main(["export", str(tmp_path / "m.gguf"), "--to", "dense", "--out", str(tmp_path / "dense")]) == 0
    written, original = (
        AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tmp_path / "dense", llama_directory)
    )
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], original[name]) for name in original)
    capsys.readouterr()
    assert main(["export", str(tmp_path / "m.gguf"), "--to", "peft", "--out", str(tmp_path / "x")]) == 2
    assert "no low-rank branches" in capsys.readouterr().err
