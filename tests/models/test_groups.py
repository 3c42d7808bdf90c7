"""Matrices that are fitted together: finding them, every method that does it, and structures that they share."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.compressors.contract import METHODS, Members, built
from eckart.jobs.compress.plan import Plan, make_plan
from eckart.jobs.compress.summary import site_reports
from eckart.jobs.resume import DirectoryStore
from eckart.models.fused_experts import unfuse
from eckart.models.groups import KINDS, find_groups
from eckart.models.sites import find_sites
from eckart.statistics import Statistics, collect
from eckart.structures import Chain, Dense, Shared, apply_transposed, from_spec
from eckart.structures.shared import bind, locate
from support import hard
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama, tiny_mixtral

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
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_every_site_is_in_one_group(method: str, make: type) -> None:
    model = make()
    sites = find_sites(model)
    groups = find_groups(model, sites, list(METHODS[method].together))
    assert sorted(site.name for group in groups for site in group.sites) == sorted(site.name for site in sites)
    assert all(group.name == group.sites[0].name for group in groups)
    assert {group.kind for group in groups} <= {"matrix", *METHODS[method].together}


def test_groups_of_every_kind_are_made_by_some_method() -> None:
    assert {kind for name in TOGETHER for kind in METHODS[name].together} == set(KINDS)


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
    result = eckart.compress(model, method, keep=0.7, calibration=ids())
    before, after = (make_plan(m, [], METHODS[method], {}).totals for m in (dense, model))
    assert after["linear-parameters"] <= 0.7 * before["linear-parameters"]
    reports = site_reports(result)
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
        eckart.compress(model, method, keep=keep, calibration=tokens)
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


def test_layers_are_paired_by_name_and_shape() -> None:
    model = tiny_llama()
    groups = [g for g in find_groups(model, find_sites(model), ["layers"]) if g.kind == "layers"]
    names = [[site.name for site in group.sites] for group in groups]
    assert ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"] in names
    assert not any(name.endswith(("o_proj", "down_proj")) for pair in names for name in pair)
    gap = [s for s in find_sites(nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))) if s.name in "0345"]
    assert [[s.name for s in g.sites] for g in find_groups(model, gap, ["layers"])] == [["0"], ["3", "4"], ["5"]]


def test_one_basis_is_the_optimum_where_inputs_agree() -> None:
    """With the same inputs in both layers the pair is one stacked matrix, and its best low rank is known."""
    weights = tuple(hard.normal(12, 10, seed=i) for i in (1, 2))
    moment = hard.normal(40, 10, seed=3)
    moment = moment.T @ moment / 40
    family = METHODS["basis-sharing"].together["layers"](
        Members(weights, (Statistics(input_second_moment=moment),) * 2)
    )
    root = torch.linalg.cholesky(moment)
    tails = torch.linalg.svdvals(torch.cat(weights) @ root).square().flip(0).cumsum(0).flip(0)
    for size, error in zip(family.sizes, family.errors.tolist(), strict=True):
        if size < 10:
            assert error == pytest.approx(float(tails[size]), rel=1e-4)
        first, second = (part.structure.to_dense().detach().double() for part in family.build(size))
        seen = sum(float(((w - v) @ root).square().sum()) for w, v in zip(weights, (first, second), strict=True))
        assert seen == pytest.approx(error, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("weights", [hard.weights()[name] for name in ("zero", "rank-one")], ids=["zero", "rank-one"])
def test_one_basis_of_deficient_matrices(weights: Tensor) -> None:
    columns = weights.shape[1]
    known = Statistics(input_second_moment=torch.eye(columns).double())
    family = METHODS["basis-sharing"].together["layers"](Members((weights, weights), (known, known)))
    for part in family.build(list(family.sizes)[-1]):
        assert torch.allclose(part.structure.to_dense(), weights, atol=1e-9)


def test_a_shared_structure_reads_its_owner() -> None:
    owner = Dense(hard.normal(3, 4))
    shared = Shared(owner)
    x = hard.normal(5, 4, seed=1)
    assert torch.equal(shared(x), owner(x))
    assert torch.equal(shared.rows(torch.tensor([2])), owner.rows(torch.tensor([2])))
    assert torch.equal(apply_transposed(shared, x @ owner.weight.T), x @ owner.weight.T @ owner.weight)
    assert (shared.dtype, shared.device) == (owner.dtype, owner.device)
    assert shared.cost().bytes == shared.cost().parameters == 0
    assert shared.cost().macs == 12
    assert not shared.state_dict()
    first, second = copy.deepcopy(nn.ModuleList([Chain(owner), Chain(shared)]))
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert not second(x).any()


def test_a_shared_structure_is_found_again() -> None:
    owner = Dense(hard.normal(3, 4))
    pair = {"a": Chain(Dense(hard.normal(2, 3)), owner), "b": Chain(Dense(hard.normal(2, 3, seed=1)), Shared(owner))}
    locate(pair)
    specs = {name: json.loads(json.dumps(structure.spec())) for name, structure in pair.items()}
    again = {name: from_spec(spec) for name, spec in specs.items()}
    bind(again)
    assert again["b"].operands()[1].owner is again["a"].operands()[1]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not there any more"):
        locate({"b": pair["b"]})
    with pytest.raises(ValueError, match="which is not there"):
        bind({"b": from_spec(specs["b"])})
    specs["b"]["children"][1]["options"]["of"] = "a/0"
    with pytest.raises(ValueError, match="was shared as"):
        bind({name: from_spec(spec) for name, spec in specs.items()})
    with pytest.raises(ValueError, match="itself shared"):
        Shared(Shared(owner))
    with pytest.raises(ValueError, match="needs an owner"):
        Shared()
