"""When `eckart compress` works block by block, and what it says then."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from eckart.cli.app import main
from eckart.jobs.compress import directory as compress
from eckart.jobs.compress.blockwise import directory as job
from eckart.jobs.compress.blockwise.directory import needed_at_once
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.texts import Texts
from eckart.models.sites import model_bytes
from support.commands import nothing_left, report_of
from support.tiny import save_tiny, tiny_llama
from tests.support.elsewhere import DEVICE, elsewhere

SMALL = ["--samples", "2", "--length", "16", "--no-speed"]
LITTLE = ["--memory", "0.0001"]


@pytest.fixture
def command(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> list[str]:
    return ["compress", str(llama_directory), "--out", str(tmp_path / "out"), "--calibration", texts[0], *SMALL]


def said(report: dict[str, Any], words: str) -> bool:
    return any(words in warning for warning in report["warnings"])


def test_what_was_written_block_by_block_is_whole_and_says_so(command: list[str], tmp_path: Path) -> None:
    assert main([*command, "--method", "gptq", "--bits", "4", *LITTLE]) == 0
    report = report_of(tmp_path / "out")
    assert said(report, "weights were read block by block: the whole model takes ")
    assert said(report, "quality and speed were not measured")
    assert said(report, "of memory at its peak, not 100.00 kB")
    assert report["quality"] is None
    assert "--memory 0.0001" in " ".join(report["command"])
    assert main(["verify", str(tmp_path / "out")]) == 0
    ids = torch.arange(8)[None]
    blocks = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids).logits
    whole = [tmp_path / "whole" if str(word).endswith("/out") else word for word in command]
    assert main([*map(str, whole), "--method", "gptq", "--bits", "4", "--eval", "none"]) == 0
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "whole")(ids).logits, blocks)
    assert not said(report_of(tmp_path / "whole"), "block by block")


def test_is_done_where_the_memory_that_is_free_does_not_suffice(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "memory_available", lambda: 1000)
    options = ["--method", "rtn", "--bits", "4", "--eval", "none"]
    assert main([*command, *options]) == 0
    assert said(report_of(tmp_path / "out"), "weights were read block by block")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) == 3


def test_is_done_where_the_memory_of_a_device_does_not_suffice(
    tmp_path: Path, texts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is tied: a subclass takes the place of a tensor when it is moved, and is another one in each place.
    source = str(save_tiny(tmp_path / "model", tiny_llama(tied=False)))
    monkeypatch.setattr(compress, "device_named", lambda name: DEVICE if name == "cuda" else torch.device("cpu"))
    monkeypatch.setattr(job, "memory_on", lambda device: 1000 if device == DEVICE else math.inf)
    recipe = Recipe("gptq", bits=4, samples=2, length=16)
    read = Texts(calibration=texts[0], evaluation="")
    with elsewhere():
        there = compress_directory(source, tmp_path / "there", recipe, read, device="cuda", cache=tmp_path / "c")
        here = compress_directory(source, tmp_path / "here", recipe, read, cache=tmp_path / "c")
    assert said(there, "weights were read block by block")
    assert not said(here, "block by block")
    assert "--device cuda" in " ".join(there["command"])
    assert there["size"] == here["size"]
    ids = torch.arange(8)[None]
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids).logits for name in ("there", "here"))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_whole_model_is_worked_on_where_it_must_be_and_a_warning_says_so(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "memory_available", lambda: 1000)
    assert main([*command, "--method", "svd", "--heal", "1", "--eval", "none"]) == 0
    assert said(report_of(tmp_path / "out"), "memory may not suffice for the whole model")
    assert said(report_of(tmp_path / "out"), "heal=1 works on the whole model at once")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "auto"], "method='auto' works on the whole model at once, and it does not fit in memory"),
        (["--method", "kfac", "--sequential"], "sequential=True works on the whole model at once"),
        (["--method", "kfac", "--max-loss", "0.1"], "max_loss=0.1 works on the whole model at once"),
        (["--method", "kfac", "--calibration", "self"], "cannot write its own calibration text"),
    ],
)
def test_what_is_refused_leaves_nothing(
    options: list[str], words: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = command if "--calibration" not in options else [*command[:4], *SMALL]
    assert main([*kept, *options, *LITTLE]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert nothing_left(tmp_path / "out")


def test_a_dry_run_says_that_it_would_be_block_by_block(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "svd", "--dry-run", *LITTLE]
    assert main([*command, *options]) == 0
    assert "worked on block by block" in " ".join(capsys.readouterr().out.split())


def test_of_the_mixture_the_texts_are_taken(command: list[str], tmp_path: Path) -> None:
    assert main([*command[:4], *SMALL, "--method", "wanda", "--percent", "50", "--eval", "none", *LITTLE]) == 0
    assert said(report_of(tmp_path / "out"), "calibration mixture is of texts alone")


def test_needed_are_the_weights_twice_and_the_statistics_of_the_largest_matrix() -> None:
    model = tiny_llama()
    assert needed_at_once(model, Recipe(method="svd", keep=0.5)) == 2 * model_bytes(model)
    assert needed_at_once(model, Recipe(method="gptq", bits=4)) == 2 * model_bytes(model) + 12 * 64 * 64
