"""Statistics against an independent computation, their cache, and what collecting leaves behind: nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.models.checkpointing import checkpointed
from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, collect
from eckart.statistics.cache import finite_weights
from support.statistics import ALL, INPUTS, LAYER, SOME, Batches, assert_same, modules_of, tokens
from support.tiny import VOCABULARY, tiny_gpt2, tiny_llama


def sampled(logits: Tensor, generator: torch.Generator) -> Tensor:
    """The labels `collect` draws: one for each position, by inversion of the distribution function."""
    p = logits.detach().float().softmax(-1).flatten(0, -2)
    u = torch.rand(len(p), 1, generator=generator)
    return torch.searchsorted(p.cumsum(-1), u).clamp_max(p.shape[1] - 1).view(logits.shape[:-1])


def whole(batches: Batches) -> Iterator[Tensor]:
    """The batches, those with padding sequence by sequence."""
    for batch in batches:
        if isinstance(batch, Tensor):
            yield batch
        else:
            pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
            yield from (ids[mask.bool()][None] for ids, mask in pairs)


def independent(model: nn.Module, names: Sequence[str], batches: Batches, seed: int = 0) -> dict[str, Statistics]:
    """Statistics by ordinary autograd: gradients by outputs and, a sequence at a time, by weights.

    Padded sequences of a batch must have lengths that differ.
    """
    generator = torch.Generator().manual_seed(seed)
    x: dict[str, list[Tensor]] = {name: [] for name in names}
    g: dict[str, list[Tensor]] = {name: [] for name in names}
    squared = {name: torch.zeros(find(model, name).shape, dtype=torch.float64) for name in names}
    sequences = 0
    for ids in whole(batches):
        labels = sampled(model(ids).logits, generator)
        for i in range(len(ids)):
            sequences += 1
            captured: dict[str, tuple[Tensor, Tensor]] = {}

            def hook(name: str, into: dict[str, tuple[Tensor, Tensor]] = captured) -> object:
                return lambda _, inputs, output: into.__setitem__(name, (inputs[0], output))

            handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
            logits = model(ids[i : i + 1]).logits
            for handle in handles:
                handle.remove()
            losses = F.cross_entropy(logits[0], labels[i], reduction="none")
            wanted = [captured[name][1] for name in names] + [find(model, name).module.weight for name in names]
            gradients = torch.autograd.grad(losses.sum(), wanted)
            for k, name in enumerate(names):
                x[name].append(captured[name][0][0].detach().double())
                g[name].append(gradients[k][0].double())
                dw = gradients[len(names) + k].double()
                squared[name] += (dw if dw.shape == squared[name].shape else dw.T).square()
    results = {}
    for name in names:
        a, b = torch.cat(x[name]), torch.cat(g[name])
        results[name] = Statistics(
            tokens=len(a),
            input_second_moment=a.T @ a / len(a),
            input_mean=a.mean(0),
            input_abs_mean=a.abs().mean(0),
            input_abs_max=a.abs().amax(0),
            gradient_second_moment=b.T @ b / len(b),
            fisher_rows=squared[name].sum(1) / sequences,
            fisher_columns=squared[name].sum(0) / sequences,
            input_sample=a,
            gradient_pairs=torch.cat([a, b], 1),
        )
    return results


def find(model: nn.Module, name: str):
    return find_sites(model, [name])[0]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_against_autograd(make: type[nn.Module]) -> None:
    model = make()
    names = SOME if make is tiny_llama else ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"]
    batches = [tokens(3, 11, seed=1), tokens(2, 7, seed=2)]
    found = collect(model, modules_of(model, names), ALL, batches, seed=5)
    assert_same(found, independent(model, names, batches, seed=5))


def test_nothing_is_collected_that_was_not_asked_for() -> None:
    model = tiny_llama()
    for need in Need:
        found = collect(model, modules_of(model, SOME), [need], [tokens(2, 5)])
        for entry in found.values():
            assert entry.tokens == 10
            assert [n for n in Need if getattr(entry, n.value) is not None] == [need]


def test_padding_is_left_out() -> None:
    model = tiny_llama()
    ids, mask = tokens(3, 9), torch.ones(3, 9, dtype=torch.long)
    mask[0, 5:] = 0
    mask[2, 8:] = 0
    batches = [{"input_ids": ids, "attention_mask": mask}, {"input_ids": ids[:1, :4], "attention_mask": mask[:1, :4]}]
    expected = independent(model, SOME, batches, seed=3)
    assert expected[SOME[0]].tokens == 5 + 9 + 8 + 4
    assert_same(collect(model, modules_of(model, SOME), ALL, batches, seed=3), expected)
    for need in Need:
        alone = collect(model, modules_of(model, SOME), [need], batches, seed=3)
        only = {n: Statistics(s.tokens, **{need.value: getattr(s, need.value)}) for n, s in expected.items()}
        assert_same(alone, only)


def test_padding_of_embeddings_is_left_out() -> None:
    model = tiny_llama(tied=False)
    ids, mask = tokens(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask[1, 2:] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    found = collect(model, modules_of(model, ["model.embed_tokens"]), [Need.INPUT_SECOND_MOMENT], [batch])
    entry = found["model.embed_tokens"]
    assert entry.tokens == 8
    frequency = torch.bincount(ids[mask.bool()], minlength=VOCABULARY) / 8
    torch.testing.assert_close(entry.gradient_second_moment, frequency.double())


def test_modules_that_read_one_tensor_share_its_statistics() -> None:
    model = tiny_llama()
    names = [f"{LAYER}.self_attn.{n}_proj" for n in "qkvo"] + [f"{LAYER}.mlp.{n}_proj" for n in ("gate", "up")]
    found = collect(model, modules_of(model, names), ALL, [tokens(2, 5), tokens(1, 4)])
    q, k, v, o, gate, up = (found[name] for name in names)
    for need in INPUTS:
        assert getattr(q, need.value) is getattr(k, need.value) is getattr(v, need.value)
        assert getattr(gate, need.value) is getattr(up, need.value)
        assert getattr(q, need.value) is not getattr(o, need.value)
    assert q.gradient_second_moment is not k.gradient_second_moment
    assert {q.tokens, k.tokens, up.tokens} == {14}


def test_embeddings_are_measured_by_frequency_and_gradient() -> None:
    model = tiny_llama(tied=False).double()
    name = "model.embed_tokens"
    ids = tokens(2, 8)
    ids[0] = 7
    found = collect(model, modules_of(model, [name]), ALL, [ids], seed=4)[name]
    frequency = torch.bincount(ids.flatten(), minlength=VOCABULARY).double() / 16
    torch.testing.assert_close(found.gradient_second_moment, frequency)
    labels = sampled(model(ids).logits, torch.Generator().manual_seed(4))
    rows = model.model.embed_tokens(ids).detach().requires_grad_()
    F.cross_entropy(model(inputs_embeds=rows).logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    g = rows.grad.flatten(0, 1).double()
    torch.testing.assert_close(found.input_second_moment.double(), g.T @ g / 16, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found.input_abs_mean, g.abs().mean(0), rtol=1e-4, atol=1e-8)
    assert not found.input_mean.any()
    rows = torch.stack(
        [torch.zeros(VOCABULARY, 32).double().index_add_(0, ids[i], g[8 * i : 8 * i + 8]) for i in (0, 1)]
    )
    torch.testing.assert_close(found.fisher_rows, rows.square().mean(0).sum(1), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(found.fisher_columns, rows.square().mean(0).sum(0), rtol=1e-4, atol=1e-8)


def test_fewer_tokens_than_dimensions_and_dead_inputs() -> None:
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 64))
    x = torch.randn(5, 64)
    x[:, [3, 17]] = 0
    found = collect(model, {"0": model[0], "2": model[2]}, ALL, [x])
    moment = found["0"].input_second_moment
    torch.testing.assert_close(moment.double(), (x.T @ x / 5).double(), rtol=1e-5, atol=1e-7)
    assert not moment[3].any()
    assert not moment[:, 17].any()
    assert torch.linalg.matrix_rank(moment.double(), rtol=1e-6) == 5
    assert not found["0"].fisher_columns[[3, 17]].any()


def test_the_second_moment_is_symmetric() -> None:
    model = nn.Sequential(nn.Linear(600, 4))
    found = collect(model, {"0": model[0]}, [Need.INPUT_SECOND_MOMENT], [torch.randn(50, 600), torch.randn(30, 600)])
    moment = found["0"].input_second_moment
    assert torch.equal(moment, moment.T)


def test_large_moments_keep_their_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(10, 6))
    x = torch.randn(9, 10)
    whole = collect(model, {"0": model[0]}, ALL, [x])["0"]
    monkeypatch.setattr(sys.modules["eckart.statistics.second_moment"], "LARGEST", 8)
    found = collect(model, {"0": model[0]}, ALL, [x])["0"]
    diagonal = whole.input_second_moment.double().diagonal()
    torch.testing.assert_close(found.input_second_moment, diagonal, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.gradient_second_moment, whole.gradient_second_moment)


def test_a_module_that_never_runs_has_no_tokens() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4)})
    model.forward = lambda x: model["used"](x)
    found = collect(model, dict(model.items()), ALL, [torch.randn(3, 4)])
    assert found["used"].tokens == 3
    assert found["unused"] == Statistics()
    with pytest.raises(ValueError, match="statistics lack 'input_mean'; they hold nothing"):
        found["unused"].get(Need.INPUT_MEAN)


def traces(model: nn.Module) -> object:
    """What collecting could leave behind: flags, and hooks, of which it may forget some."""
    modules = dict(model.named_modules())
    return (
        {name: p.requires_grad for name, p in model.named_parameters()},
        {name: (m.training, getattr(m, "gradient_checkpointing", None)) for name, m in modules.items()},
        {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules.items()},
        {name: sorted(set(vars(m)) - {"gradient_checkpointing"}) for name, m in modules.items()},
    )


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_llama()
    model.lm_head.weight.requires_grad_(False)
    layer = model.model.layers[0].mlp
    layer.up_proj.weight.requires_grad_(False)
    layer.down_proj.weight.grad = torch.ones_like(layer.down_proj.weight)
    model.model.layers[1].train()
    seen: list[int] = []
    layer.up_proj.register_forward_hook(lambda *_: seen.append(1))
    model.register_forward_pre_hook(lambda *_: seen.append(2))
    before = traces(model)
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    for broken in (False, True):
        if broken:
            model.model.norm.weight.data[0] = torch.nan
            weights["model.norm.weight"][0] = torch.nan
            with pytest.raises(ValueError, match="output on calibration data has NaN"):
                collect(model, modules_of(model, SOME), ALL, [tokens(1, 5)])
        else:
            collect(model, modules_of(model, SOME), ALL, [tokens(1, 5)])
        assert seen == [2, 1]
        seen.clear()
        assert traces(model) == before
        assert [name for name, p in model.named_parameters() if p.grad is not None] == [f"{LAYER}.mlp.down_proj.weight"]
        for name, t in model.state_dict().items():
            assert torch.equal(t.nan_to_num(9), weights[name].nan_to_num(9)), name


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_gradient_checkpointing_changes_nothing(make: type[nn.Module]) -> None:
    model = make()
    sites = {site.name: site.module for site in find_sites(model)}
    batches = [tokens(2, 9), tokens(1, 6)]
    expected = collect(model, sites, ALL, batches)
    before = traces(model)
    ran: list[str] = []
    handle = model.get_submodule(next(iter(sites))).register_forward_hook(lambda *_: ran.append("forward"))
    with checkpointed(model, True) as active:
        assert active
        found = collect(model, sites, ALL, batches)
    handle.remove()
    assert len(ran) > len(batches), "nothing was computed anew"
    assert_same(found, expected, rtol=1e-5)
    assert traces(model) == before
    with checkpointed(nn.Linear(2, 2), True) as active:
        assert not active


def test_bad_weights_are_named() -> None:
    model = tiny_llama()
    modules = modules_of(model, SOME)
    finite_weights(modules)
    modules[SOME[2]].weight.data[0, :2] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(ValueError, match=r"layers.0.mlp.down_proj.weight has 2 NaN or Inf entries of 2048"):
        finite_weights(modules)
