"""Compressed models as directories that transformers reads, saves again and trains."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

import eckart
from eckart.jobs.exports.dense import write as to_dense_directory
from eckart.models import transformers as hf
from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.models.sites import find_sites
from support.saving import CASES, IDS, assert_equal, base
from support.tiny import tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("case", CASES)
def test_transformers_reads_it_bit_for_bit(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    model, directory = saved[case]
    loaded, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert_equal(loaded, model)
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-6, atol=1e-6)
    assert type(loaded) is type(model)
    kinds = [type(m) for m in loaded.modules() if isinstance(m, StructuredLinear | StructuredEmbedding | TiedLinear)]
    assert kinds == [
        type(m) for m in model.modules() if isinstance(m, StructuredLinear | StructuredEmbedding | TiedLinear)
    ]


@pytest.mark.parametrize("case", CASES)
def test_generation_works(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    expected = model.generate(IDS[:1], max_new_tokens=6, do_sample=False)
    assert torch.equal(loaded.generate(IDS[:1], max_new_tokens=6, do_sample=False), expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_dtype(saved: dict[str, tuple[nn.Module, Path]], case: str, dtype: torch.dtype) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    assert {t.dtype for t in loaded.parameters()} == {dtype}
    expected = copy.deepcopy(model).to(dtype)
    assert_equal(loaded, expected)
    if hasattr(expected.model if hasattr(expected, "model") else None, "rotary_emb"):
        expected.model.rotary_emb = loaded.model.rotary_emb  # its buffers stay in float32
    torch.testing.assert_close(loaded(IDS[:1]).logits, expected(IDS[:1]).logits)


@pytest.mark.parametrize("case", CASES)
def test_meta_device(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory, device_map="meta")
    assert all(t.is_meta for t in loaded.state_dict().values())
    assert {n: t.shape for n, t in loaded.state_dict().items()} == {n: t.shape for n, t in model.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_a_loaded_model_saves_itself_again(saved: dict[str, tuple[nn.Module, Path]], case: str, tmp_path: Path) -> None:
    model, directory = saved[case]
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    loaded.save_pretrained(tmp_path)
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert_equal(again, model)
    size = sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))
    assert size <= 1.1 * sum(f.stat().st_size for f in directory.glob("*.safetensors"))


@pytest.mark.parametrize("case", CASES)
def test_a_compressed_model_saved_by_transformers(
    saved: dict[str, tuple[nn.Module, Path]], case: str, tmp_path: Path
) -> None:
    model, _ = saved[case]
    copy.deepcopy(model).save_pretrained(tmp_path)
    assert_equal(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_compressing_a_loaded_model_further(saved: dict[str, tuple[nn.Module, Path]], tmp_path: Path) -> None:
    _, directory = saved["lord"]
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    dense = [site.name for site in find_sites(loaded, embeddings=True)]
    eckart.compress(loaded, "svd", keep=0.8, of="bytes", embeddings=True, include=("*wte",))
    assert dense
    hf.write_model(loaded, None, tmp_path)
    assert_equal(AutoModelForCausalLM.from_pretrained(tmp_path), loaded)


@pytest.mark.parametrize("case", CASES)
def test_training_a_loaded_model(saved: dict[str, tuple[nn.Module, Path]], case: str) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(saved[case][1])
    loss = loaded(IDS, labels=IDS).loss
    loss.backward()
    for name, p in loaded.named_parameters():
        assert p.grad is not None or not p.requires_grad, name
    torch.optim.SGD(loaded.parameters(), lr=1e-5).step()
    assert loaded(IDS, labels=IDS).loss < loss


BEFORE = """
import sys
import eckart
assert "transformers" not in sys.modules
from transformers import AutoModelForCausalLM
"""

AFTER = """
import sys
from transformers import AutoModelForCausalLM
dense = AutoModelForCausalLM.from_pretrained(sys.argv[3])
assert not any(name.split(".")[0] == "eckart" for name in sys.modules)
import eckart
"""

SAME = """
import torch
from safetensors.torch import load_file
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
reference = load_file(sys.argv[2])
logits = reference.pop("logits")
state = model.state_dict()
assert state.keys() == reference.keys()
assert all(torch.equal(state[name], reference[name]) for name in reference)
ids = torch.arange(24).view(2, 12) * 7 % 300
torch.testing.assert_close(model(ids).logits, logits, rtol=1e-5, atol=1e-5)
print(type(model).__name__)
"""


def fresh(code: str, *arguments: str) -> str:
    source = str(Path(eckart.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.strip()


@pytest.mark.parametrize("imports", [BEFORE, AFTER], ids=["eckart first", "transformers first"])
def test_in_a_fresh_process(saved: dict[str, tuple[nn.Module, Path]], imports: str, tmp_path: Path) -> None:
    # An export is to load there before eckart is imported, the compressed model after.
    model, directory = saved["kfac"]
    to_dense_directory(str(directory), tmp_path / "dense")
    reference = {n: t.detach().clone() for n, t in model.state_dict().items()}
    expected = tmp_path / "expected.safetensors"
    save_file({**reference, "logits": model(IDS).logits.detach().contiguous()}, expected)
    assert fresh(imports + SAME, str(directory), str(expected), str(tmp_path / "dense")) == "LlamaForCausalLM"


@pytest.mark.parametrize("case", CASES)
def test_export_gives_an_ordinary_model(saved: dict[str, tuple[nn.Module, Path]], case: str, tmp_path: Path) -> None:
    model, directory = saved[case]
    to_dense_directory(str(directory), tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    assert "quantization_config" not in config
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-3, atol=1e-4)
    plain = base(CASES[case][0])
    extra = set(loaded.state_dict()) - set(plain.state_dict())
    assert all(name.endswith(".bias") for name in extra)
    assert not extra or case == "kfac"
    tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    assert not any(type(m).__module__.startswith("eckart") for m in loaded.modules())


def test_export_refuses_biases_that_have_no_place(tmp_path: Path) -> None:
    llama = tiny_llama().config
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = Qwen2Config(**{k: getattr(llama, k) for k in keys}, num_key_value_heads=2)
    for method in ("lord", "svd"):
        model = Qwen2ForCausalLM(config).eval()
        eckart.compress(
            model, method, keep=0.8, of="linear-parameters", calibration=IDS, include=("*q_proj", "*down_proj")
        )
        (tmp_path / method).mkdir()
        hf.write_model(model, tiny_tokenizer(), tmp_path / method)
        if method == "svd":
            to_dense_directory(str(tmp_path / method), tmp_path / "dense")
            loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
            torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-3, atol=1e-4)
            continue
        with pytest.raises(ValueError, match=r"Qwen2ForCausalLM has no place for the biases of 2 matrices .*down_proj"):
            to_dense_directory(str(tmp_path / method), tmp_path / "dense")
        assert not (tmp_path / "dense").exists()


def test_transformers_reads_shards(saved: dict[str, tuple[nn.Module, Path]], tmp_path: Path) -> None:
    model, _ = saved["kfac"]
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_equal(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_export_refuses_what_is_dense(llama_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no structured matrices; it is dense already"):
        to_dense_directory(str(llama_directory), tmp_path / "dense")
    assert not list(tmp_path.iterdir())


def test_files_hold_every_number_once(saved: dict[str, tuple[nn.Module, Path]]) -> None:
    for model, directory in saved.values():
        with safe_open(directory / "model.safetensors", "pt") as opened:
            names = set(opened.keys())
        tensors = {n: t for n, t in model.state_dict().items() if n in names}
        pointers = {t.data_ptr() for t in model.state_dict().values()}
        assert len(names) == len(pointers) == len(tensors)


def test_weights_are_as_readable_as_other_files(saved: dict[str, tuple[nn.Module, Path]]) -> None:
    _, directory = saved["kfac"]
    modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
