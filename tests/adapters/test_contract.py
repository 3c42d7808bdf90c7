"""Adapters: every registered one against one suite, and what users do with them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import eckart
from eckart.adapters.contract import ADAPTERS, Layer
from eckart.jobs.adapt.adapted import Adapted
from eckart.models.layers import is_conv1d
from eckart.models.sites import find_sites, linear_layers
from eckart.statistics import Statistics
from eckart.statistics.gradients import mean_gradients
from eckart.structures import low_rank
from support import hard
from support.adapting import IN_PLACE, MODELS, adapted, close, has_matrix, ids, logits, made, train, unquantized
from support.cases import each, in_turn
from support.tiny import tiny_llama


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", ADAPTERS)
def test_the_model_is_itself_at_the_start(method: str, kind: str) -> None:
    model = made(method, kind)
    before = logits(model, ids())
    adapter = adapted(model, method)
    split = any(place.taken for place in adapter.places.values())
    after = logits(model, ids())
    if unquantized(adapter):
        assert close(after, before, 1e-5) if split else torch.equal(after, before)
        assert max(adapter.errors.values()) < 1e-6
    else:
        assert all(0 < error < 0.2 for error in adapter.errors.values())


@pytest.mark.parametrize(("method", "kind"), in_turn(ADAPTERS, MODELS))
def test_training_moves_the_paths_only_and_lowers_the_loss(method: str, kind: str) -> None:
    model = made(method, kind)
    adapter = adapted(model, method)
    asked = {id(p) for p in model.parameters() if p.requires_grad}
    assert asked == {id(p) for p in adapter.trainable_parameters()} != set()
    card = ADAPTERS[method]
    for name, place in adapter.places.items():
        count = sum(p.numel() for p in place.path().parameters() if p.requires_grad)
        assert count == card.parameters(*place.shape, adapter.ranks[name])
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    losses = train(model, adapter, steps=12 if kind == "llama" else 6)
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", ADAPTERS)
def test_merged_unmerged_switched_off_and_removed(method: str) -> None:
    model = made(method)
    adapter = adapted(model, method)
    base = made(method) if unquantized(adapter) else None
    train(model, adapter, steps=3)
    trained = logits(model, ids())
    if has_matrix(adapter):
        errors = adapter.merge()
        if unquantized(adapter):
            assert max(errors.values()) < 1e-3
            assert close(logits(model, ids()), trained)
        adapter.unmerge()
        assert close(logits(model, ids()), trained)
    adapter.deactivate()
    if base is not None:
        assert close(logits(model, ids()), logits(base, ids()))
    adapter.activate()
    assert close(logits(model, ids()), trained)
    adapter.remove()
    assert not any(isinstance(module, Adapted) for module in model.modules())
    if base is not None:
        assert close(logits(model, ids()), logits(base, ids()))


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_same_seed_gives_the_same_adapter(method: str) -> None:
    found = []
    for seed in (0, 0):
        model = made(method)
        adapter = adapted(model, method, seed=seed)
        train(model, adapter, steps=2)
        found.append(logits(model, ids()))
    assert torch.equal(*found)


@pytest.mark.parametrize("method", ADAPTERS)
def test_beside_a_compressed_model(method: str) -> None:
    for by in ("svd",) if method in IN_PLACE else ("rtn", "svd"):
        model = tiny_llama()
        eckart.compress(model, by, keep=0.8, of="bytes")
        before = logits(model, ids())
        adapter = adapted(model, method)
        if not any(error > 0 for error in adapter.errors.values()):
            assert close(logits(model, ids()), before)
        losses = train(model, adapter, steps=4)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("method", "by"),
    # Low rank is beside each method in float32 above; here beside one that adds, one that splits, one that is in place.
    [*in_turn(sorted(ADAPTERS.keys() - IN_PLACE), ("", "rtn")), ("lora", "svd"), ("pissa", "svd")]
    + [(method, "svd") for method in sorted(IN_PLACE)],
)
def test_in_bfloat16_what_trains_is_float32(method: str, by: str) -> None:
    model = tiny_llama().bfloat16()
    if by:
        eckart.compress(model, by, keep=0.8, of="bytes")
    dense = logits(model, ids())
    adapter = adapted(model, method)
    assert {p.dtype for p in adapter.trainable_parameters()} == {torch.float32}
    assert logits(model, ids()).dtype == torch.bfloat16
    losses = train(model, adapter, steps=3)
    assert losses[-1] < losses[0] + 0.1
    if has_matrix(adapter):
        adapter.merge()
        assert logits(model, ids()).dtype == torch.bfloat16
        adapter.unmerge()
    adapter.deactivate()
    if unquantized(adapter):
        assert close(logits(model, ids()), dense, 0.1)


@pytest.mark.parametrize("method", ADAPTERS)
@each(name=["zero", "rank-one", "rank-deficient", "1xn", "tall", "wide", "repeated", "transposed"])
def test_hard_matrices(method: str, name: str) -> None:
    weight = hard.weights()[name].float()
    x = hard.normal(32, weight.shape[1], seed=1)
    g = hard.normal(32, weight.shape[0], seed=2)
    known = Statistics(
        tokens=32,
        input_second_moment=x.T @ x / 32,
        input_mean=x.mean(0),
        input_abs_mean=x.abs().mean(0),
        gradient_second_moment=g.T @ g / 32,
        fisher_rows=g.square().mean(0),
        fisher_columns=x.square().mean(0),
    )
    standing = low_rank(weight[:, :1], weight[:1])
    layer = Layer(weight, known, 1, 1.0, torch.Generator().manual_seed(0), (g.T @ x / 32).float(), standing)
    start = ADAPTERS[method].entry(layer)
    assert start is not None
    assert all(torch.isfinite(p).all() for p in start.path.parameters())
    assert start.path.shape == weight.shape


@pytest.mark.parametrize("method", sorted(ADAPTERS.keys() - IN_PLACE))
def test_a_rank_beyond_the_matrix_is_refused(method: str) -> None:
    model = tiny_llama()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for rank in (0, 10_000):
        with pytest.raises(ValueError, match=rf"{rank}"):
            eckart.adapt(model, method, rank=rank, calibration=ids(8))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], t) for name, t in before.items())


def test_statistics_are_measured_once_for_methods_that_read_the_same(tmp_path: Path) -> None:
    def passes(method: str, cache: Path | None) -> tuple[int, dict[str, Tensor]]:
        model, calls = tiny_llama(), 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        model.register_forward_pre_hook(count)
        adapter = adapted(model, method, cache=cache)
        return calls, {k: t for n, path in adapter.paths.items() for k, t in path.state_dict(prefix=f"{n}.").items()}

    without, first = passes("corda", None)
    assert without > 0
    assert passes("corda-keep", tmp_path)[0] == without
    calls, second = passes("corda", tmp_path)
    assert calls == 0
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_several_adapters() -> None:
    model = tiny_llama()
    plain = logits(model, ids())
    first = eckart.adapt(model, "pissa", rank=2, name="first")
    train(model, first)
    one = logits(model, ids())
    second = eckart.adapt(model, "lora", rank=3, name="second", include=["q_proj"])
    train(model, second)
    two = logits(model, ids())
    first.activate()
    assert close(logits(model, ids()), one)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in first.trainable_parameters()}
    first.deactivate()
    assert close(logits(model, ids()), plain)
    second.activate()
    assert close(logits(model, ids()), two)
    with pytest.raises(ValueError, match="has an adapter 'first' already"):
        eckart.adapt(model, "lora", rank=2, name="first")
    second.remove()
    first.activate()
    assert close(logits(model, ids()), one)
    assert torch.equal(logits(copy.deepcopy(model), ids()), logits(model, ids()))


def test_a_budget_of_parameters() -> None:
    model = tiny_llama()
    shapes = [site.shape for site in find_sites(model)]
    adapter = eckart.adapt(model, "lora", parameters=3 * sum(map(sum, shapes)) + 5)
    assert set(adapter.ranks.values()) == {3}
    with pytest.raises(ValueError, match="parameters=7 is less than the"):
        eckart.adapt(tiny_llama(), "lora", parameters=7)


def test_bad_requests_change_nothing() -> None:
    model = tiny_llama()
    for words, options in {
        "unknown adapter 'lra'": {"method": "lra"},
        "matches no matrix": {"include": ["nothing"]},
        "letters, digits and _": {"name": "a.b"},
        "must be above 0": {"alpha": -1.0},
    }.items():
        with pytest.raises(ValueError, match=words):
            eckart.adapt(model, **{"method": "lora", **options})  # type: ignore[arg-type]
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"up_proj.weight has 1 NaN or Inf"):
        eckart.adapt(model, "lora")
    assert not any(isinstance(module, Adapted) for module in model.modules())


def test_merging_into_a_quantized_base_says_what_it_costs() -> None:
    model = tiny_llama()
    eckart.compress(model, "rtn", keep=0.45, of="bytes")
    adapter = eckart.adapt(model, "lora", rank=4)
    train(model, adapter, steps=20)
    trained = logits(model, ids())
    errors = adapter.merge()
    assert max(errors.values()) > 0.01
    assert {type(place.base.structure).__name__ for place in adapter.places.values()} == {"Quantized"}
    adapter.unmerge()
    assert torch.equal(logits(model, ids()), trained)


@pytest.mark.parametrize("kind", MODELS)
def test_mean_gradients_are_those_of_autograd(kind: str) -> None:
    model = MODELS[kind]()
    modules = linear_layers(model)
    batches = [ids(2, seed=1), {"input_ids": ids(3, seed=2), "labels": ids(3, seed=3)}]
    found = mean_gradients(model, modules, batches)
    for module in modules.values():
        module.weight.grad = None  # type: ignore[union-attr]
    losses = [model(input_ids=batches[0], labels=batches[0]).loss, model(**batches[1]).loss]  # type: ignore[arg-type]
    (sum(losses) / 2).backward()  # type: ignore[union-attr]
    for name, module in modules.items():
        gradient = module.weight.grad  # type: ignore[union-attr]
        expected = gradient.T if is_conv1d(module) else gradient  # type: ignore[union-attr]
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="returned no loss"):
        mean_gradients(model, modules, [{"input_ids": ids()}])
