"""Training the factors of a compressed model end to end."""

from __future__ import annotations

import copy
from pathlib import Path

import jsonschema
import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.cli.app import main
from eckart.files.json import read_json
from eckart.jobs.compress.distill import distill, judged, sides
from eckart.report import schema
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama


def ids(count: int = 16, length: int = 24, seed: int = 0) -> Tensor:
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("method", "make"),
    [*((method, tiny_llama) for method in ("svd", "kfac", "basis-sharing", "monarch")), ("kfac", tiny_gpt2)],
)
def test_the_divergence_falls_and_each_round_trains_its_side(method: str, make: type) -> None:
    dense = make()
    model = copy.deepcopy(dense)
    eckart.compress(model, method, keep=0.6, of="linear-parameters", calibration=ids())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batches = list(ids(64).split(4))
    result = distill(model, dense, batches, 30)
    assert result.kl[0] > result.kl[1] > result.kl[-1]
    assert judged(model, dense, batches[7::8], {}) == pytest.approx(result.kl[-1], rel=1e-5)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    first, others = sides(model)
    assert moved == {*first, *others}


def test_a_round_that_does_not_help_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eckart.jobs.compress.distill.RATE", 1e30)
    dense = tiny_llama()
    model = copy.deepcopy(dense)
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = distill(model, dense, list(ids().split(4)), 4)
    assert len(set(result.kl)) == 1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_same_seed_gives_the_same_model() -> None:
    found = []
    for _ in range(2):
        model = tiny_llama().bfloat16()
        result = eckart.compress(model, "svd", keep=0.5, of="linear-parameters", calibration=ids(64), distill=6)
        assert result.distillation is not None
        found.append(model(ids()).logits)
    assert torch.equal(*found)


def test_what_cannot_be_distilled_is_refused() -> None:
    with pytest.raises(ValueError, match="trains a language model"):
        eckart.compress(nn.Sequential(nn.Linear(32, 32)), "svd", calibration=[torch.randn(8, 32)], distill=5)
    with pytest.raises(ValueError, match=r"distill=-1 steps cannot be made"):
        eckart.compress(tiny_llama(), "svd", calibration=ids(), distill=-1)
    with pytest.raises(ValueError, match="distill=5 trains on one batch"):
        eckart.compress(tiny_llama(), "svd", keep=0.6, of="linear-parameters", calibration=ids(2), distill=5)


def test_the_report(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> None:
    arguments = ["compress", str(llama_directory), "--out", str(tmp_path / "out"), "--method", "svd", "--no-speed"]
    arguments += ["--calibration", texts[0], "--eval", texts[1], "--samples", "64", "--length", "32"]
    assert main([*arguments, "--distill", "3", "--keep", "0.6"]) == 0
    report = read_json(tmp_path / "out" / "report.json")
    jsonschema.validate(report, schema(), jsonschema.Draft202012Validator)
    assert report["distill"]["steps"] == 3
    assert report["seconds"]["distill"] > 0


def test_where_nothing_can_be_distilled_the_result_says_so() -> None:
    plain, distilled = tiny_llama(), tiny_llama()
    eckart.compress(plain, "magnitude", keep=0.6, of="bytes", calibration=ids(64))
    result = eckart.compress(distilled, "magnitude", keep=0.6, of="bytes", calibration=ids(64), distill=2)
    assert result.distillation is None
    assert result.warnings == [
        "distillation was left out: the structures are made of no matrices, which are what it trains"
    ]
    assert torch.equal(plain(ids()).logits, distilled(ids()).logits)
