"""What a job says of a model: every number is counted once, and what is left says why."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import eckart
from eckart.jobs.compress.coverage import covered_by
from eckart.jobs.compress.recipe import Recipe
from eckart.models.fused_experts import unfuse
from eckart.report.types import Coverage
from support.tiny import tiny_gpt2, tiny_llama
from support.zoo import zoo


def whys(found: Coverage) -> dict[str, str]:
    return {kind.name: kind.why for kind in found.matrices}


@pytest.mark.parametrize("name", zoo())
def test_every_number_of_every_class_is_taken_or_left_for_a_reason(name: str) -> None:
    model, _ = zoo()[name]()
    unfuse(model)
    found = covered_by(model, Recipe(method="svd", of="parameters", embeddings=True, head=True))
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert sum(kind.parameters for kind in found.matrices) == matrices
    assert found.parameters.total == matrices + found.vectors == sum(p.numel() for p in model.parameters())
    assert found.parameters.taken == sum(kind.parameters for kind in found.matrices if kind.taken) > 0
    assert all(kind.taken == (not kind.why) for kind in found.matrices)
    assert found.sentence.startswith("looked at ")
    for kind in found.matrices:
        assert kind.taken or (kind.name in found.sentence) or re.search(r"and \d+ more", found.sentence)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, lambda: tiny_llama(tied=False)])
def test_all_linear_maps_are_taken(make: object) -> None:
    model = make()  # type: ignore[operator]
    found = covered_by(model, Recipe(embeddings=False))
    assert found.parameters.taken == found.linear_parameters.taken
    assert found.linear_parameters.taken / found.linear_parameters.total > 0.95  # all but the biases
    assert "an embedding: --embeddings takes it" in whys(found).values()
    of_bytes = covered_by(model, Recipe())
    assert of_bytes.linear_parameters == found.linear_parameters
    assert of_bytes.parameters.taken / of_bytes.parameters.total > 0.95
    for other in (Recipe(of="linear-parameters"), Recipe("svd"), Recipe(rotate=True)):
        assert covered_by(model, other).parameters == found.parameters


def test_patterns_and_the_head() -> None:
    found = covered_by(tiny_llama(), Recipe(exclude=("re:layers.0", "k_proj"), embeddings=True, of="parameters"))
    reasons = whys(found)
    assert reasons["model.layers.*.self_attn.k_proj"] == "left out by --include or --exclude"
    assert reasons["model.embed_tokens"] == ""
    assert found.linear_parameters.taken < found.parameters.taken
    kinds = [kind for kind in found.matrices if kind.name == "model.layers.*.self_attn.q_proj"]
    assert {kind.taken for kind in kinds} == {True, False}


UNUSUAL = {
    "a convolution in 2 groups": lambda: nn.Conv2d(64, 64, 3, groups=2),
    "a convolution padded by": lambda: nn.Conv2d(64, 64, 3, padding_mode="reflect"),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(64, 64, 3),
    "Conv3d": lambda: nn.Conv3d(64, 64, 3),
    "Bilinear": lambda: nn.Bilinear(16, 16, 64),
    "LSTM hands its weights": lambda: nn.LSTM(64, 64),
    "GRU hands its weights": lambda: nn.GRU(64, 64),
    "remove_parametrizations": lambda: parametrizations.weight_norm(nn.Linear(64, 64)),
    "parametrization": lambda: parametrizations.spectral_norm(nn.Linear(64, 64)),
    "remove_weight_norm": lambda: nn.utils.weight_norm(nn.Linear(64, 64)),
    "prune.remove": lambda: prune.l1_unstructured(nn.Linear(64, 64), "weight", 0.5),
    "add_bias_kv": lambda: nn.MultiheadAttention(64, 4, add_bias_kv=True),
    "max_norm": lambda: nn.Embedding(64, 64, max_norm=1.0),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("word", UNUSUAL)
def test_what_is_no_matrix_is_said_by_every_job(word: str) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"unusual": UNUSUAL[word](), "linear": nn.Linear(64, 16)})

    result = eckart.compress(make(), "svd", keep=0.5, of="linear-parameters")
    diagnosis = eckart.diagnose(make())
    adapter = eckart.adapt(make(), "lora", rank=2)
    for found in (result, diagnosis, adapter):
        assert found.coverage.parameters.taken == 64 * 16 or word == "max_norm"
        assert any(word in text and "unusual" in text for text in found.warnings), found.warnings


def test_an_ordinary_model_is_not_warned_about() -> None:
    result = eckart.compress(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), "svd", keep=0.5, of="linear-parameters"
    )
    assert result.warnings == []
    assert result.coverage.sentence == "looked at 98.5% of the model's numbers; left as they are: 1.5% in vectors"


class _Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.used(x)
        return y


@pytest.mark.parametrize("method", ["kfac", "wanda", "gptq", "svd-int8", "auto"])
def test_what_the_data_never_reaches_stays_dense_and_is_said(method: str) -> None:
    torch.manual_seed(0)
    model = _Unused()
    result = eckart.compress(model, method, keep=0.8, of="bytes", calibration=[torch.randn(64, 16)])
    if eckart.METHODS.find(method).needs:
        assert type(model.unused) is nn.Linear
        assert any("unused" in text and "did not call it" in text for text in result.warnings), result.warnings
