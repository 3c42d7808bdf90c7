"""Configurations that ask for more than their files can fill are refused before a model is laid out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import eckart
from eckart.cli.app import main
from eckart.errors import Refused
from eckart.models import transformers as hf
from support.saving import IDS, edit_json, edit_tensors
from support.tiny import save_tiny, tiny_llama

REFUSED: list[tuple[str, Any]] = [
    ("num_hidden_layers", 10**9),
    ("num_hidden_layers", 10**5),
    ("num_attention_heads", 0),
    ("num_attention_heads", -1),
    ("num_attention_heads", 10**9),
    ("hidden_size", 2**31),
    ("intermediate_size", 2**62),
    ("vocab_size", 2**40),
    ("head_dim", 10**9),
    ("_attn_implementation", "kernels-community/flash-attn"),
    ("attn_implementation", {"": "kernels-community/flash-attn"}),
    ("rope_parameters", {"rope_type": "yarn", "factor": 1e308, "rope_theta": 0}),
    ("quantization_config", {"quant_method": "eckart"}),
    ("quantization_config", "x"),
    ("rms_norm_eps", "x"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_refused(key: str, value: Any, directory: Path) -> None:
    whole = (directory / "config.json").read_text()
    started = time.perf_counter()
    try:
        edit_json(directory / "config.json", lambda config: config.update({key: value}))
        with pytest.raises(Refused) as caught:
            hf.load(str(directory))
    finally:
        (directory / "config.json").write_text(whole)
    assert len(str(caught.value)) < 1200
    assert time.perf_counter() - started < 20


def test_a_pipe_among_the_files(directory: Path) -> None:
    os.mkfifo(directory / "special_tokens_map.json")
    try:
        with pytest.raises(Refused, match="is a pipe or a device"):
            hf.load(str(directory))
    finally:
        (directory / "special_tokens_map.json").unlink()


def test_an_index_out_of_range_in_a_model_that_is_offloaded(tmp_path: Path) -> None:
    model = tiny_llama()
    eckart.compress(model, "kfac", keep=0.7, of="linear-parameters", calibration=IDS)
    eckart.save(model, tmp_path / "saved")

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors[next(name for name in tensors if name.endswith(".index"))][0] = 30_000

    def forget(config: dict[str, Any]) -> None:
        for key in ("seal", "checksums"):
            del config["quantization_config"][key]

    edit_tensors(tmp_path / "saved", damage)
    edit_json(tmp_path / "saved" / "config.json", forget)
    for options in (
        {},
        {"device_map": "cpu"},
        {"device_map": "auto", "max_memory": {"cpu": "60KB"}, "offload_folder": str(tmp_path / "offloaded")},
    ):
        with pytest.raises(Refused, match=r"index holds 30000, outside 0\.\."):
            AutoModelForCausalLM.from_pretrained(tmp_path / "saved", **options)


def test_names_do_not_tell_the_terminal_what_to_do(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = {"\x1b]0;owned\x07\x1b[2J\u202e[/][bold]x": {"module": "linear"}}
    save_tiny(tmp_path / "m\x1b[2J")
    entry = {"quant_method": "eckart", "format": 1, "modules": hostile}
    edit_json(tmp_path / "m\x1b[2J" / "config.json", lambda config: config.update({"quantization_config": entry}))
    assert main(["diagnose", str(tmp_path / "m\x1b[2J")]) == 2
    assert main(["diagnose", str(tmp_path / "\x1b[2J[/]")]) == 2
    assert main(["export", str(directory), "--to", "dense", "--out", str(tmp_path / "\x1b[2J[/]")]) == 2
    shown = "".join(capsys.readouterr())
    assert "eckart: error:" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
