"""Directories that are no models, or hold what could run code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from eckart.models import transformers as hf
from support.saving import edit_json, edit_tensors
from support.tiny import save_tiny, tiny_llama


def test_directories_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no directory /nonexistent/model"):
        hf.load_model("/nonexistent/model")
    with pytest.raises(ValueError, match=r"there is no directory \./model"):
        hf.load_model("./model")
    with pytest.raises(ValueError, match=r"has no config\.json; is it a model directory"):
        hf.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read as JSON"):
        hf.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json does not hold a JSON object"):
        hf.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"has no \*.safetensors weights"):
        hf.load_model(str(tmp_path))
    with pytest.raises(ValueError, match="is no GGUF file; name the directory"):
        hf.load_model(str(tmp_path / "config.json"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_of_other_names_are_known(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"only pickled weights \({name}\).*convert them once"):
        hf.load_model(str(tmp_path))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": 5}', "\0"])
def test_a_tokenizer_that_cannot_be_read_is_named(content: str | None, tmp_path: Path, llama_directory: Path) -> None:
    directory = tmp_path / "m"
    shutil.copytree(llama_directory, directory)
    (directory / "tokenizer.json").unlink()
    if content is not None:
        (directory / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"(?s)m has no tokenizer that can be read .*tokenizer.save_pretrained\(DIR\)"):
        hf.load_model(str(directory))


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": "x"}, {"hidden_size": -5}, {"quantization_config": 5}, {"num_hidden_layers": 0.5}],
    ids=str,
)
def test_a_configuration_of_nonsense_is_refused(change: dict[str, Any], tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "m")
    edit_json(tmp_path / "m" / "config.json", lambda config: config.update(change))
    with pytest.raises(ValueError, match=r"m cannot be loaded: "):
        hf.load_model(str(tmp_path / "m"))


def test_pickled_weights_are_refused_with_advice(tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only pickled weights \(pytorch_model.bin\).*from_pretrained.*save_pretrain"):
        hf.load_model(str(tmp_path / "pickled"))


def test_an_unknown_architecture_is_refused(tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "m")
    edit_json(tmp_path / "m" / "config.json", lambda config: config.update(model_type="nonesuch"))
    with pytest.raises(ValueError, match="nonesuch"):
        hf.load_model(str(tmp_path / "m"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, llama_directory: Path) -> None:
    shutil.copytree(llama_directory, tmp_path / "m")
    witness = tmp_path / "ran"
    (tmp_path / "m" / "modeling.py").write_text(f"open({str(witness)!r}, 'w').close()\n")
    edit_json(
        tmp_path / "m" / "config.json",
        lambda config: config.update(model_type="own", auto_map={"AutoModelForCausalLM": "modeling.Own"}),
    )
    with pytest.raises(ValueError, match=r"m cannot be loaded|trust_remote_code|own"):
        hf.load_model(str(tmp_path / "m"))
    assert not witness.exists()


def test_a_dense_directory_with_missing_weights_is_refused(tmp_path: Path) -> None:
    # transformers fills them with random numbers and a warning.
    save_tiny(tmp_path)
    edit_tensors(tmp_path, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj.weight"):
        hf.load_model(str(tmp_path))
