"""Every compressor that fits matrices together, against one suite."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.compressors.contract import METHODS, built
from eckart.jobs.compress.plan import Plan, make_plan
from eckart.jobs.compress.report import matrices
from eckart.jobs.compress.store import DirectoryStore
from eckart.models.fused_experts import unfuse
from eckart.models.sites import find_sites
from eckart.report import as_json
from eckart.statistics import collect
from support.tiny import VOCABULARY, tiny_llama, tiny_mixtral

TOGETHER = [name for name, card in METHODS.items() if card.together]


def ids(count: int = 8, length: int = 16) -> Tensor:
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(3))


def model_for(method: str) -> nn.Module:
    """A model that has groups for a method."""
    if "experts" not in METHODS[method].together:
        return tiny_llama()
    model = tiny_mixtral()
    unfuse(model)
    return model


def fitted_plan(model: nn.Module, method: str) -> Plan:
    sites = find_sites(model)
    card = METHODS[method]
    statistics = collect(model, {site.name: site.module for site in sites}, card.needs, [ids()])
    plan = make_plan(model, sites, card, statistics)
    plan.fit()
    return plan


def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(tokens).logits
    return found.detach()


@pytest.mark.parametrize("method", TOGETHER)
def test_a_joint_family_keeps_its_promises(method: str) -> None:
    model = model_for(method)
    plan = fitted_plan(model, method)
    for group in plan.groups:
        if group.kind == "matrix":
            continue
        assert plan.curves[group.name].reason == ""
        family = METHODS[method].candidates(group.kind, plan.members(group))
        sizes, costs, errors = list(family.sizes), list(family.costs), family.errors
        assert len(sizes) == len(costs) == len(errors) > 0
        assert [c.bytes for c in costs] == sorted(c.bytes for c in costs)
        assert (errors.diff() <= 1e-9 * family.zero_error).all()
        assert errors[0] <= family.zero_error * (1 + 1e-9)
        for size, cost, error in list(zip(sizes, costs, errors.tolist(), strict=True))[:: max(1, len(sizes) // 2)]:
            parts = built(family, size)
            assert [part.structure.shape for part in parts] == [site.shape for site in group.sites]
            total = [part.structure.cost() for part in parts]
            biases = sum(part.bias.numel() for part in parts if part.bias is not None)
            assert sum(c.bytes for c in total) + 4 * biases == cost.bytes
            assert sum(c.parameters for c in total) + biases == cost.parameters
            assert sum(c.macs for c in total) == cost.macs
            assert sum(part.error for part in parts) == pytest.approx(error, rel=1e-6, abs=1e-9 * family.zero_error)


@pytest.mark.parametrize("method", TOGETHER)
def test_compressed_saved_and_loaded(method: str, tmp_path: Path) -> None:
    dense = model_for(method)
    model = copy.deepcopy(dense)
    result = eckart.compress(model, method, keep=0.7, of="linear-parameters", calibration=ids())
    before, after = (make_plan(m, [], METHODS[method], {}).totals for m in (dense, model))
    assert after["linear-parameters"] <= 0.7 * before["linear-parameters"]
    reports = [as_json(matrix) for matrix in matrices(result)]
    assert [r["name"] for r in reports if "group" in r]
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("_proj.bias"))
    assert sum(r["parameters"] for r in reports) + biases == after["linear-parameters"]
    eckart.save(model, tmp_path / "m")
    tokens = ids(2)
    assert torch.equal(logits(eckart.load(tmp_path / "m", model_for(method)), tokens), logits(model, tokens))
    assert not torch.equal(logits(dense, tokens), logits(model, tokens))


@pytest.mark.parametrize("method", TOGETHER)
def test_more_budget_is_closer(method: str) -> None:
    tokens = ids()
    reference = logits(model_for(method), tokens)
    far = []
    for keep in (0.35, 0.65, 0.95):
        model = model_for(method)
        eckart.compress(model, method, keep=keep, of="linear-parameters", calibration=tokens)
        far.append(float((logits(model, tokens) - reference).norm()))
    assert far[0] > far[1] > far[2]


@pytest.mark.parametrize("method", TOGETHER)
def test_sequential_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="fits several matrices together"):
        eckart.compress(tiny_llama(), method, calibration=ids(), sequential=True)


@pytest.mark.parametrize("method", TOGETHER)
def test_finished_groups_are_kept(method: str, tmp_path: Path) -> None:
    plan = fitted_plan(model_for(method), method)
    store = DirectoryStore(tmp_path)
    for group in plan.groups:
        size = plan.curves[group.name].sizes[0]
        assert size is not None
        fitted = plan.build(group, size)
        store.put(group.name, size, fitted)
        found = store.get(group.name, size)
        assert found is not None
        for one, other in zip(fitted, found, strict=True):
            assert torch.equal(one.structure.to_dense(), other.structure.to_dense())
            assert one.error == other.error
