"""What a model is calibrated on: its own text, mixtures, and what the command line makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import eckart
from eckart.cli.app import main
from eckart.jobs.calibration import calibration_tokens
from eckart.models.own_text import own_text
from support.commands import SMALL, report_of
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama, tiny_tokenizer

TEXTS = {"a": "one two three four five six seven " * 200, "b": "matrix of numbers and of words " * 200}


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_written_follows_the_model(make: Callable[[], nn.Module]) -> None:
    # The share of each first token is its probability; later ones follow from those before them, cache or not.
    model = make()
    tokens = own_text(model, 4000, 2, seed=3)
    assert tokens.shape == (4000, 2)
    assert tokens.dtype == torch.int64
    with torch.no_grad():
        start = torch.zeros(1, 1, dtype=torch.int64)
        first = model(start).logits[0, -1].softmax(-1)
        likeliest = int(first.argmax())
        second = model(torch.tensor([[0, likeliest]])).logits[0, -1].softmax(-1)
    after = tokens[tokens[:, 0] == likeliest, 1]
    for drawn, expected in ((tokens[:, 0], first), (after, second)):
        counts = torch.bincount(drawn, minlength=VOCABULARY).double()
        variance = len(drawn) * expected.double() * (1 - expected.double())
        assert ((counts - len(drawn) * expected.double()).abs() <= 5 * variance.sqrt() + 3).all()


def test_written_is_reproducible_and_leaves_the_model() -> None:
    model = tiny_llama().train()
    steps: list[tuple[int, int]] = []
    first = own_text(model, 3, 5, seed=1, on_progress=lambda *s: steps.append(s))
    assert steps == [(i, 5) for i in range(1, 6)]
    assert torch.equal(first, own_text(model, 3, 5, seed=1))
    assert not torch.equal(first, own_text(model, 3, 5, seed=2))
    assert model.training


def test_a_model_without_a_first_token_starts_anywhere() -> None:
    model = tiny_llama()
    model.config.bos_token_id = model.config.eos_token_id = None
    assert own_text(model, 2, 3).shape == (2, 3)


def test_what_cannot_write_says_so() -> None:
    with pytest.raises(ValueError, match="Linear is no language model"):
        own_text(nn.Linear(2, 2), 1, 2)
    model = tiny_llama()
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite logits on text of its own"):
        own_text(model, 1, 2)


def test_a_mixture_is_half_the_models_own_and_alternates(tmp_path: Path) -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    mixed = calibration_tokens("mixture", TEXTS, model, tokenizer, 8, 16, 0, tmp_path)
    own = calibration_tokens("self", "", model, tokenizer, 4, 16, 0, tmp_path)
    assert mixed.shape == (8, 16)
    assert torch.equal(mixed[::2], own)
    decoded = [tokenizer.decode(row) for row in mixed[1::2]]
    assert sum("three" in text or "five" in text for text in decoded) == 2


def test_what_was_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    first = calibration_tokens("self", "", model, None, 2, 8, 0, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("eckart.jobs.calibration.own_text", lambda *_, **__: pytest.fail("written again"))
        assert torch.equal(calibration_tokens("self", "", model, None, 2, 8, 0, tmp_path), first)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(calibration_tokens("self", "", model, None, 2, 8, 0, tmp_path), first)


def test_a_language_model_needs_no_text() -> None:
    result = eckart.compress(tiny_llama(), keep=0.7, of="linear-parameters", samples=4, length=16)
    assert result.calibration["tokens"] == 4 * 16
    with pytest.raises(ValueError, match="needs calibration data"):
        eckart.compress(nn.Sequential(nn.Linear(8, 8)), keep=0.7, of="linear-parameters")


def test_bad_requests_do_not_wait_for_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eckart.jobs.compress.run.own_text", lambda *_, **__: pytest.fail("written"))
    with pytest.raises(ValueError, match="matches no matrix"):
        eckart.compress(tiny_llama(), include=("nothing",))
    model = tiny_llama()
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.up_proj\.weight has 1 NaN or Inf"):
        eckart.compress(model)


def test_the_command_line(
    llama_directory: Path, texts: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", str(llama_directory), "--no-speed", *SMALL, "--calibration", "self"]
    assert main([*command, "--out", str(tmp_path / "out"), "--eval", texts[1]]) == 0
    assert report_of(tmp_path / "out")["calibration"]["text"] == "self"
    assert main([*command, "--out", str(tmp_path / "other"), "--eval", "self"]) == 2
    assert "no text of that name" in capsys.readouterr().err
