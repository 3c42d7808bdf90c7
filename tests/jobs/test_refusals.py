"""Requests, models and machines that cannot be: what is said, and that nothing half-done is left."""

from __future__ import annotations

import copy
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import eckart
from eckart import METHODS
from eckart.cli.app import main
from eckart.compressors.contract import Fitted
from eckart.files.directories import check_target
from eckart.files.tensors import write_safetensors
from eckart.jobs.compress.store import DirectoryStore
from eckart.jobs.evaluate.quality import evaluate
from eckart.machine import check_scheduler
from eckart.models import transformers as hf
from eckart.statistics.cache import finite_weights
from eckart.structures import Interpolative, exact_input, low_rank
from support import hard
from support.cases import each
from support.commands import SMALL
from support.tiny import VOCABULARY, save_tiny, tiny_gpt2, tiny_llama

IDS = torch.randint(VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that is refused, and returns what it says in one line."""

    def call(*arguments: object) -> str:
        assert main([str(a) for a in arguments]) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith("eckart: error:") or "\neckart: error:" in shown.err
        assert "Traceback" not in shown.err
        return shown.err.replace("\n", " ")

    return call


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compress", "evaluate", "export"])
def test_pickled_weights_on_the_command_line(
    command: str, refused: Callable[..., str], tmp_path: Path, texts: tuple[str, str]
) -> None:
    directory = save_tiny(tmp_path / "m")
    (directory / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), directory / "pytorch_model.bin")
    options = {
        "compress": ["--out", tmp_path / "out", "--calibration", texts[0], "--eval", "none"],
        "evaluate": ["--text", texts[0]],
        "export": ["--to", "dense", "--out", tmp_path / "out"],
    }
    message = refused(command, directory, *options[command])
    assert "only pickled weights (pytorch_model.bin)" in message
    assert "convert them once" in message
    (directory / "pytorch_model.bin").unlink()
    assert f"{directory} has no *.safetensors weights" in refused(command, directory, *options[command])
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_any_parameter_that_is_not_finite_is_named(bad: float) -> None:
    for name in ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"):
        model = tiny_llama()
        model.get_parameter(name).data.view(-1)[0] = bad
        with pytest.raises(ValueError, match=f"{name} has 1 NaN or Inf entries of"):
            finite_weights({"": model})
    layer = nn.Linear(2, 3)
    layer.bias.data[0] = bad
    with pytest.raises(ValueError, match=r"a\.b\.bias has 1 NaN or Inf entries of 3"):
        finite_weights({"a.b": layer})


# --- evaluate and export --------------------------------------------------------------------------------------------


def small_llama(directory: Path, **options: int) -> Path:
    sizes = {"vocab_size": VOCABULARY, "max_position_embeddings": 512, **options}
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        tie_word_embeddings=True,
        **sizes,
    )
    return save_tiny(directory, LlamaForCausalLM(config))


def test_evaluate_with_wrong_arguments(
    refused: Callable[..., str], llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    short = ["--text", texts[0], "--length", "32", "--samples", "2", "--no-speed"]
    (tmp_path / "empty.txt").write_text("\n")
    assert f"{texts[0]} is no GGUF file; name the directory" in refused("evaluate", texts[0], *short)
    assert "has no config.json; is it a model directory?" in refused("evaluate", tmp_path, *short)
    for name, value, message in (
        ("--text", tmp_path / "empty.txt", "empty.txt holds no text"),
        ("--length", 0, "length 0 and count 2"),
        ("--length", -3, "length -3 and count 2"),
        ("--length", 1, "length at least 2; got torch.int64 of shape (2, 1)"),
        ("--samples", 0, "length 32 and count 0"),
        ("--samples", -1, "length 32 and count -1"),
        ("--against", texts[0], "is no GGUF file; name the directory"),
        (
            "--against",
            small_llama(tmp_path / "words", vocab_size=200),
            "but the reference's vocabulary is 200; use its own tokenizer",
        ),
        (
            "--against",
            small_llama(tmp_path / "context", max_position_embeddings=16),
            "32 tokens do not fit the reference's context of 16",
        ),
    ):
        assert message in refused("evaluate", llama_directory, *short, name, value)


def test_a_reference_is_checked_like_the_model() -> None:
    short = tiny_gpt2()
    short.config.n_positions = 8
    with pytest.raises(ValueError, match="24 tokens do not fit the reference's context of 8"):
        evaluate(tiny_llama(), IDS, short)


def test_export_with_wrong_arguments(
    refused: Callable[..., str], llama_directory: Path, texts: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export = ["--to", "dense", "--out", out]
    assert f"{texts[0]} is no GGUF file; name the directory" in refused("export", texts[0], *export)
    assert "has no config.json" in refused("export", tmp_path, *export)
    assert "has no structured matrices; it is dense already" in refused("export", llama_directory, *export)
    assert "exists and is not a directory" in refused("export", llama_directory, "--to", "dense", "--out", texts[0])
    assert not list(tmp_path.iterdir())


# --- output ---------------------------------------------------------------------------------------------------------


def test_links_and_no_name_are_refused_as_output(
    refused: Callable[..., str], llama_directory: Path, texts: tuple[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    given = ["compress", llama_directory, "--calibration", texts[0], "--eval", "none", "--no-speed", *SMALL, "--out"]
    for name in ("link", "dangling"):
        message = refused(*given, tmp_path / name)
        assert f"{tmp_path / name} is a symbolic link; name the directory that it stands for" in message
    monkeypatch.chdir(tmp_path / "empty")
    assert "'.' is no name of a new directory" in refused(*given, ".")
    with pytest.raises(ValueError, match="'/' is no name"):
        check_target(Path("/"))
    assert sorted(os.listdir(tmp_path)) == ["dangling", "empty", "link"]


# --- what an interrupted run left, damaged --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "site",
    [
        "5",
        "[]",
        '{"size": 1}',
        '{"size": 1, "errors": [0.5], "structures": [{"kind": "wavelet"}]}',
        '{"size": 1, "errors": [0.5], "structures": [{"kind": "cosine", "shape": [4, 4], "options": {"size": 4}}]}',
        '{"size": 1, "errors": [], "structures": [{"kind": "chain"}]}',
        '{"size": 1, "errors": ["x"], "structures": [5]}',
        '{"size": 1, "errors": 5, "structures": 5}',
        "{",
    ],
)
def test_a_damaged_site_is_made_again(site: str, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    structure = low_rank(torch.ones(3, 1), torch.ones(1, 4))
    fitted = Fitted(structure, None, 0.5)
    store.put("a", 1, [fitted])
    assert store.get("a", 1) is not None
    tensors = {f"0.{k}": v for k, v in structure.state_dict().items()}
    write_safetensors(tensors, tmp_path / "a.safetensors", {"group": site})
    assert store.get("a", 1) is None


def test_a_site_with_an_impossible_index_is_made_again(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    structure = Interpolative.from_pivots(torch.tensor([1]), torch.ones(2, 1), torch.ones(1, 4))
    store.put("a", 1, [Fitted(structure, None, 0.5)])
    with safe_open(tmp_path / "a.safetensors", "pt") as opened:
        tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    next(t for k, t in tensors.items() if k.endswith("index"))[0] = 99
    write_safetensors(tensors, tmp_path / "a.safetensors", metadata)
    assert store.get("a", 1) is None


# --- numbers --------------------------------------------------------------------------------------------------------


def same(one: nn.Module, other: nn.Module) -> None:
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(
    ("method", "dtype", "sequential"),
    [
        (name, torch.bfloat16, False) if i % 2 else (name, torch.float16, not METHODS[name].together)
        for i, name in enumerate(sorted(METHODS))
    ],
    ids=str,
)
def test_short_dtypes_all_the_way(method: str, dtype: torch.dtype, sequential: bool, tmp_path: Path) -> None:
    model = tiny_llama().to(dtype)
    result = eckart.compress(model, method, keep=0.8, of="bytes", calibration=IDS, sequential=sequential)
    assert not result.warnings
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {dtype}
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", tiny_llama().to(dtype))
    same(loaded, model)
    hf.write_model(model, None, tmp_path / "saved")
    same(AutoModelForCausalLM.from_pretrained(tmp_path / "saved"), model)
    logits = model(IDS).logits
    assert torch.isfinite(logits).all()
    assert torch.equal(loaded(IDS).logits, logits)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_weights_that_are_not_contiguous(method: str, tmp_path: Path) -> None:
    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 16))

    strided, plain = net(), net()
    strided[0].weight = nn.Parameter(hard.normal(24, 32).float().T)
    strided[2].weight = nn.Parameter(hard.normal(16, 64, seed=1).float()[:, ::2])
    assert not any(strided[i].weight.is_contiguous() for i in (0, 2))
    plain.load_state_dict(strided.state_dict())
    x = hard.normal(64, 24, seed=2).float()
    for model in (strided, plain):
        eckart.compress(model, method, keep=0.8, of="bytes", calibration=[x])
    torch.testing.assert_close(strided(x), plain(x), rtol=1e-3, atol=1e-3)
    eckart.save(strided, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", net())
    same(loaded, strided)
    assert torch.equal(loaded(x), strided(x))


@pytest.mark.parametrize("method", sorted(METHODS))
@each(6, name=hard.weights())
def test_hard_matrices_are_compressed_and_saved_or_refused(method: str, name: str, tmp_path: Path) -> None:
    weight = hard.weights()[name]

    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype))

    model = net()
    model[0].weight = nn.Parameter(weight.clone())
    x = hard.normal(5, weight.shape[1], seed=40).to(weight.dtype) * (2.0**-9 if name == "fp16-large" else 1)
    # Squares beyond float64 have no error to compare; a row or a column has few smaller forms.
    refusal = ""
    try:
        result = eckart.compress(model, method, keep=0.9, of="bytes", calibration=[x])
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert name == "graded-entries" or 1 in weight.shape
        why = "^0 stays dense: fit failed: .* overflows.*; so " if 1 not in weight.shape else "^"
        assert re.search(rf"{why}keep=.* cannot be met with {method}: the least is [01].* .*to compress\)$", refusal)
        assert torch.equal(model[0].weight, weight)
        return
    assert not result.warnings
    assert torch.isfinite(exact_input(model[0].structure).to_dense()).all()
    eckart.save(model, tmp_path / name)
    loaded = eckart.load(tmp_path / name, net())
    same(loaded, model)
    # Products depend on the alignment of what is in memory, which is another one in a mapped file.
    assert torch.equal(copy.deepcopy(loaded)(x), copy.deepcopy(model)(x))


# --- Dask -----------------------------------------------------------------------------------------------------------


def test_a_scheduler_needs_dask(
    refused: Callable[..., str],
    llama_directory: Path,
    texts: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    given = ["--calibration", texts[0], "--eval", "none", "--no-speed", *SMALL, "--scheduler", "tcp://localhost:8786"]
    message = refused("compress", llama_directory, "--out", tmp_path / "out", *given)
    assert "--scheduler needs Dask: pip install 'eckart[dist]'" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("Timed out trying to connect"), ValueError("missing port number")], ids=str)
def test_a_scheduler_that_does_not_answer(
    error: Exception,
    refused: Callable[..., str],
    llama_directory: Path,
    texts: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def client(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pytest.importorskip("distributed"), "Client", client)
    given = ["--calibration", texts[0], "--eval", "none", "--no-speed", *SMALL, "--scheduler", "tcp://nowhere:1"]
    message = refused("compress", llama_directory, "--out", tmp_path / "out", *given)
    assert f"no Dask scheduler answers at 'tcp://nowhere:1' ({error}); start one with `dask scheduler`" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["nonsense", "", "http://localhost:1", "tcp://localhost:abc", "nobody"])
def test_addresses_of_no_scheduler(address: str) -> None:
    pytest.importorskip("distributed")
    if address == "nobody":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    started = time.perf_counter()
    with pytest.raises(
        ValueError, match=rf"no Dask scheduler answers at '{address}' \(.*start one with `dask scheduler`"
    ):
        check_scheduler(address)
    assert time.perf_counter() - started < 30
