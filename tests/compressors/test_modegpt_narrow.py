"""MoDeGPT with one width for all layers."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS, Statistics
from eckart.compressors._head_products import pair_scores
from eckart.compressors.contract import Members
from eckart.jobs.compress.plan import Plan, make_plan, put
from eckart.jobs.exports._ordinary import made_dense
from eckart.layouts.attention_heads import Heads
from eckart.models.groups import Group
from eckart.models.narrower import narrowings
from eckart.models.sites import find_sites
from eckart.statistics import collect
from support import hard
from support.attention import MODELS, ids

CARD = METHODS["modegpt-narrow"]


def plan_for(model: nn.Module) -> Plan:
    sites = find_sites(model)
    statistics = collect(model, {site.name: site.module for site in sites}, CARD.needs, [ids()])
    return make_plan(model, sites, CARD, statistics)


def of_kind(plan: Plan, kind: str) -> tuple[Group, Members]:
    group = next(group for group in plan.groups if group.kind == kind)
    return group, plan.members(group)


def entering(model: nn.Module, names: list[str]) -> list[Tensor]:
    """What goes into some layers, (tokens, in)."""
    seen: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen.__setitem__(name, args[0].detach().flatten(0, -2))
        )
    model(ids())
    return [seen[name] for name in names]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "qwen3"])
def test_all_units_are_the_model_itself(name: str) -> None:
    model = MODELS[name]()
    plan, trial = plan_for(model), copy.deepcopy(model)
    groups = [group for group in plan.groups if group.kind != "matrix"]
    assert {"mlps"} <= {group.kind for group in groups}
    for group in groups:
        full = group.heads.size if group.heads else group.sites[0].shape[0]
        for site, one in zip(group.sites, CARD.together[group.kind](plan.members(group)).build(full), strict=True):
            put(trial, site, one)
    torch.testing.assert_close(trial(ids()).logits, model(ids()).logits, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["llama", "llama-gqa", "qwen2"])
def test_what_is_left_out_is_gone_from_a_smaller_model(name: str) -> None:
    model = MODELS[name]()
    eckart.compress(model, "modegpt-narrow", keep=0.6, of="linear-parameters", calibration=ids())
    wanted = model(ids()).logits
    assert all(module.bias is None for n, module in model.named_modules() if n.endswith(("down_proj", "o_proj")))
    made_dense(model)
    hidden, heads = narrowings(model)
    assert hidden.after < hidden.before == 64
    assert heads.after < heads.before == 8
    config = copy.deepcopy(model.config)
    for one in hidden, heads:
        one.narrow(model)
        for field, value in one.fields.items():
            setattr(config, field, value)
    smaller = type(model)(config).double().eval()
    smaller.load_state_dict(model.state_dict())
    torch.testing.assert_close(smaller(ids()).logits, wanted, rtol=1e-6, atol=1e-6)
    keys = smaller(ids(), use_cache=True).past_key_values.layers[0].keys
    assert keys.shape[-1] == heads.after
    step = smaller(ids()[:, -1:], past_key_values=smaller(ids()[:, :-1], use_cache=True).past_key_values).logits
    torch.testing.assert_close(step[:, -1], wanted[:, -1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2"])
def test_all_heads_keep_the_pairs_with_the_largest_scores_of_all(name: str) -> None:
    model = MODELS[name]()
    plan = plan_for(model)
    group, members = of_kind(plan, "attentions")
    heads = group.heads
    assert heads is not None
    assert members.layers == 2
    inputs = entering(copy.deepcopy(model), [site.name for site in group.sites])
    total = torch.zeros(heads.size, dtype=torch.float64)
    for i in range(0, len(group.sites), 4):
        outputs = [
            model.get_submodule(site.name)(x) for site, x in zip(group.sites[i : i + 2], inputs[i:], strict=False)
        ]
        query, key = (y.detach().square().mean(0).view(heads.keys, -1, heads.size) for y in outputs)
        total += pair_scores(query, key[:, 0], heads.rotary).sum(0)
    of_pairs = total.view(2, -1).sum(0)
    best = max(combinations(range(4), 2), key=lambda pair: float(of_pairs[list(pair)].sum()))
    for site, one in zip(group.sites, CARD.together["attentions"](members).build(4), strict=True):
        if site.name.endswith(("q_proj", "k_proj")):
            rows = one.structure.to_dense().ne(0).any(1).view(-1, 2, 4)
            assert all(
                rows[h, half].nonzero().flatten().tolist() == list(best) for h in range(len(rows)) for half in (0, 1)
            )


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2", "opt"])
def test_values_of_all_heads_have_one_rank_and_are_the_best_of_it(name: str) -> None:
    """Against the singular values of what the outputs of a head are on the data itself."""
    model = MODELS[name]()
    plan = plan_for(model)
    group, members = of_kind(plan, "attentions")
    heads = group.heads
    assert heads is not None
    _, _, x, _ = entering(copy.deepcopy(model), [site.name for site in group.sites])[:4]
    *_, value, output = (model.get_submodule(site.name) for site in group.sites[:4])
    fitted = CARD.together["attentions"](members).build(4)[2:4]
    centre = output.bias is not None
    own = 0.0 if value.bias is None else value.bias
    before = (x @ value.weight.T + own).detach().view(len(x), heads.keys, heads.size)
    new = x @ fitted[0].structure.to_dense().T + (0.0 if fitted[0].bias is None else fitted[0].bias + own)
    after = new.detach().view(len(x), heads.keys, heads.size)
    served, narrow = heads.queries // heads.keys, fitted[1].structure.to_dense()
    for h in range(heads.keys):
        columns = [slice((h * served + i) * heads.size, (h * served + i + 1) * heads.size) for i in range(served)]
        wanted = torch.cat([before[:, h] @ output.weight.detach()[:, c].T for c in columns], 1)
        given = torch.cat([after[:, h] @ narrow[:, c].T for c in columns], 1).detach()
        if centre:  # what is constant is in the bias
            wanted, given = (y - y.mean(0) for y in (wanted, given))
        best = torch.linalg.svdvals(wanted)[4:].square().sum()
        assert float((wanted - given).square().sum()) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize("kind", CARD.together)
@pytest.mark.parametrize("hard_case", ["zero", "rank one", "dead inputs", "large", "bfloat16", "not contiguous"])
def test_hard_modules(kind: str, hard_case: str) -> None:
    shapes = [(16, 10), (16, 10), (10, 16)] if kind == "mlps" else [(16, 10), (8, 10), (8, 10), (10, 16)]
    heads = None if kind == "mlps" else Heads(4, 2, 4, 4)
    dtype = torch.bfloat16 if hard_case == "bfloat16" else torch.float64
    weights = [hard.normal(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes * 2)]
    inputs = [hard.normal(3 if hard_case == "dead inputs" else 40, w.shape[1], seed=9) for w in weights]
    if hard_case == "zero":
        weights, inputs = [torch.zeros_like(w) for w in weights], [torch.zeros_like(x) for x in inputs]
    elif hard_case == "rank one":
        weights = [w[:, :1] @ w[:1] for w in weights]
    elif hard_case == "large":
        weights = [w * 1e30 for w in weights]
    elif hard_case == "not contiguous":
        weights = [w.T.contiguous().T for w in weights]
    statistics = tuple(Statistics(input_second_moment=x.T @ x / len(x), input_mean=x.mean(0)) for x in inputs)
    biases = tuple(w.new_ones(len(w)) for w in weights)
    for own in (), biases:
        family = CARD.together[kind](Members(tuple(weights), statistics, heads, own, layers=2))
        assert len(family.sizes) > 0
        assert (family.errors.diff() <= 1e-12 * family.zero_error).all()
        for size in family.sizes:
            for weight, one in zip(weights, family.build(size), strict=True):
                dense = one.structure.to_dense()
                assert dense.dtype == weight.dtype
                assert torch.isfinite(dense).all()
                assert one.bias is None or (torch.isfinite(one.bias).all() and one.bias.dtype == dtype)
                assert own or one.bias is None
                assert dense.double().norm() <= 1e3 * (1 + weight.double().norm())
    broken = (*weights[:-1], weights[-1] * float("nan"))
    with pytest.raises(ValueError, match="NaN or Inf"):
        CARD.together[kind](Members(broken, statistics, heads, layers=2))
