"""MoDeGPT: its three decompositions against computations of their own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from eckart import Statistics
from eckart.compressors._fewer_units import Units
from eckart.compressors._head_products import pair_scores, rotated_order
from eckart.compressors.contract import Fitted, JointFamily, Members
from eckart.jobs.compress.plan import Plan, make_plan, put
from eckart.layouts.attention_heads import Heads
from eckart.models.groups import Group
from eckart.models.sites import find_sites
from eckart.statistics import collect
from eckart.structures import Selection
from support import hard
from support.attention import CARD, MODELS, ids


def plan_for(model: nn.Module) -> Plan:
    sites = find_sites(model)
    statistics = collect(model, {site.name: site.module for site in sites}, CARD.needs, [ids()])
    return make_plan(model, sites, CARD, statistics)


def of_kind(plan: Plan, kind: str) -> tuple[Group, Members]:
    group = next(group for group in plan.groups if group.kind == kind)
    return group, plan.members(group)


def family_of(plan: Plan, group: Group) -> JointFamily:
    return CARD.together[group.kind](plan.members(group))


def with_fitted(model: nn.Module, group: Group, fitted: list[Fitted]) -> nn.Module:
    trial = copy.deepcopy(model)
    for site, one in zip(group.sites, fitted, strict=True):
        put(trial, site, one)
    return trial


def outputs(model: nn.Module) -> Tensor:
    found: Tensor = model(ids()).logits
    return found.detach()


@pytest.mark.parametrize("name", MODELS)
def test_all_units_are_the_model_itself(name: str) -> None:
    model = MODELS[name]()
    plan = plan_for(model)
    trial = copy.deepcopy(model)
    for group in plan.groups:
        if group.kind != "matrix":
            family = family_of(plan, group)
            full = {"mlp": group.sites[-1].shape[1]}.get(group.kind, group.sites[-1 - (group.kind[0] == "v")].shape[0])
            for site, one in zip(group.sites, family.build(full), strict=True):
                put(trial, site, one)
    torch.testing.assert_close(outputs(trial), outputs(model), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["llama-gqa", "gpt2", "opt", "bert"])
def test_hidden_units_are_merged_by_least_squares(name: str) -> None:
    """The stated error is what a regression of the outputs on the units that are kept leaves, on the same data."""
    model = MODELS[name]()
    plan = plan_for(model)
    group, members = of_kind(plan, "mlp")
    seen: list[Tensor] = []
    writer = model.get_submodule(group.sites[-1].name)
    handle = writer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().flatten(0, -2)))
    model(ids())
    handle.remove()
    hidden, weight = seen[0], members.weights[-1]
    family = family_of(plan, group)
    fitted = family.build(24)
    kept = fitted[-1].structure.operands()[-1]
    assert isinstance(kept, Selection)
    known = torch.cat([hidden[:, kept.index.long()], torch.ones(len(hidden), 1)], 1)
    wanted = hidden @ weight.T
    best = known @ torch.linalg.lstsq(known, wanted, driver="gelsd").solution
    error = float((wanted - best).square().sum() / len(hidden))
    assert fitted[-1].error == pytest.approx(error, rel=1e-3)
    trial = with_fitted(model, group, fitted)
    inner: list[Tensor] = []
    trial.get_submodule(group.sites[-1].name).register_forward_hook(lambda _m, _a, out: inner.append(out.detach()))
    trial(ids())
    own = members.biases[-1] if members.biases[-1] is not None else 0.0
    torch.testing.assert_close(inner[0].flatten(0, -2) - own, best, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "llama-gqa", "qwen2", "opt"])
def test_scores_are_of_the_outputs_that_are_kept(name: str) -> None:
    """A dense copy whose other outputs are constant at their mean, rotated pairs together, is the same model."""
    model = MODELS[name]()
    plan = plan_for(model)
    group, members = of_kind(plan, "query-key")
    heads = group.heads
    assert heads is not None
    family = family_of(plan, group)
    fitted = family.build(6)
    dense = copy.deepcopy(model)
    means = [s.input_mean for s in members.statistics]
    index = fitted[1].structure.operands()[0].index.long()  # type: ignore[union-attr]
    for site, mean, served in zip(group.sites, means, (heads.queries // heads.keys, 1), strict=True):
        kept = torch.zeros(heads.keys, heads.size, dtype=torch.bool)
        kept.view(-1)[index] = True
        if heads.rotary:
            half = heads.rotary // 2
            assert torch.equal(kept[:, :half], kept[:, half : 2 * half])
        dropped = ~kept.repeat_interleave(served, 0).flatten()
        layer = dense.get_submodule(site.name)
        constant = layer.weight.detach() @ mean
        weight = layer.weight.detach().clone()
        weight[dropped] = 0
        bias = torch.zeros(len(weight), dtype=torch.float64) if layer.bias is None else layer.bias.detach().clone()
        bias[dropped] += constant[dropped]
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    torch.testing.assert_close(outputs(with_fitted(model, group, fitted)), outputs(dense), rtol=1e-9, atol=1e-9)


def test_scores_are_squared_errors_at_all_angles() -> None:
    """The score of a pair is the error of leaving it out, averaged over angles; that of a single output is its own."""
    query, key = hard.normal(50, 2, 6, seed=4), hard.normal(50, 6, seed=5)  # (tokens, query heads, size)
    scores = pair_scores(query.square().mean(0)[None], key.square().mean(0)[None], rotary=4)
    angles = torch.arange(16).double() * torch.pi / 8
    for i in (0, 1):
        q, k = query[..., [i, i + 2]], key[:, [i, i + 2]]
        turned = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1).view(-1, 2, 2)
        error = torch.einsum("sha,rab,tb->rsth", q, turned, k).square().mean((0, 1, 2)).sum()
        assert float(scores[0, i] + scores[0, i + 2]) == pytest.approx(float(error))
    single = (query[:, None, :, 5] * key[None, :, None, 5]).square().mean((0, 1)).sum()
    assert float(scores[0, 5]) == pytest.approx(float(single))
    order, whole = rotated_order(scores.repeat(2, 1), 4)
    assert sorted(order.tolist()) == list(range(12))
    for count in range(13):
        kept = set(order[:count].tolist())
        cut = any((6 * head + i in kept) != (6 * head + i + 2 in kept) for head in (0, 1) for i in (0, 1))
        assert bool(whole[count]) is not cut


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (4, 2), (6, 1)])
def test_values_are_the_optimum_of_their_products(queries: int, keys: int) -> None:
    size, columns, out = 4, 18, 20
    heads = Heads(queries, keys, size)
    value, output = hard.normal(keys * size, columns, seed=1), hard.normal(out, queries * size, seed=2)
    x = hard.normal(60, columns, seed=3) * hard.decaying(columns, 1) + 0.3
    known = Statistics(input_second_moment=x.T @ x / 60, input_mean=x.mean(0))
    bias = hard.normal(keys * size, seed=4)
    family = CARD.together["value-output"](Members((value, output), (known, known), heads, (bias, None)))
    centred = (x - x.mean(0)).T / 60**0.5
    per = queries // keys
    products = [
        torch.cat([output[:, q * size : (q + 1) * size] for q in range(k * per, (k + 1) * per)])
        @ value[k * size : (k + 1) * size]
        for k in range(keys)
    ]
    values = torch.cat([torch.linalg.svdvals(p @ centred)[:size].square() for p in products]).sort(descending=True)[0]
    assert isinstance(family, Units)
    for kept, stated in zip(family.sizes, family.errors.tolist(), strict=True):
        assert stated == pytest.approx(float(values[kept:].sum()), rel=1e-8)
        first, second = family.build(kept)
        v, o = (f.structure.to_dense().detach() for f in (first, second))
        error = 0.0
        for k, product in enumerate(products):
            own = v[k * size : (k + 1) * size]
            read = torch.cat([o[:, q * size : (q + 1) * size] for q in range(k * per, (k + 1) * per)])
            error += float(((product - read @ own) @ centred).square().sum())
        assert error == pytest.approx(stated, rel=1e-8)
        # What attention of any weights that sum to one writes, of inputs at their mean, is what it was.
        assert first.bias is not None
        assert second.bias is not None
        mean = x.mean(0)
        told, wanted = v @ mean + bias + first.bias, value @ mean + bias
        spread = [t.view(keys, 1, size).expand(-1, per, -1).flatten() for t in (told, wanted)]
        torch.testing.assert_close(o @ spread[0] + second.bias, output @ spread[1])


@pytest.mark.parametrize("kind", CARD.together)
@pytest.mark.parametrize("hard_case", ["zero", "dead-inputs", "bfloat16"])
def test_hard_modules(kind: str, hard_case: str) -> None:
    heads = Heads(4, 2, 4, 4)
    shapes = {"mlp": [(16, 10), (16, 10), (10, 16)], "query-key": [(16, 10), (8, 10)]}.get(kind, [(8, 10), (10, 16)])
    dtype = torch.bfloat16 if hard_case == "bfloat16" else torch.float64
    weights = tuple(hard.normal(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes))
    inputs = [hard.normal(3 if hard_case == "dead-inputs" else 40, w.shape[1], seed=9) for w in weights]
    if hard_case == "zero":
        weights, inputs = tuple(torch.zeros_like(w) for w in weights), [torch.zeros_like(x) for x in inputs]
    statistics = tuple(Statistics(input_second_moment=x.T @ x / len(x), input_mean=x.mean(0)) for x in inputs)
    family = CARD.together[kind](Members(weights, statistics, heads))
    assert (family.errors.diff() <= 0).all()
    for size in family.sizes:
        for weight, one in zip(weights, family.build(size), strict=True):
            dense = one.structure.to_dense()
            assert dense.dtype == weight.dtype
            assert torch.isfinite(dense).all()
            assert one.bias is None or (torch.isfinite(one.bias).all() and one.bias.dtype == dtype)
            assert dense.double().norm() <= 1e3 * (1 + weight.double().norm())
    with pytest.raises(ValueError, match="NaN or Inf"):
        CARD.together[kind](Members((*weights[:-1], weights[-1] * float("nan")), statistics, heads))
