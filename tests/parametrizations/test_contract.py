"""Every parametrization against one suite: it trains, goes on, is saved, and what it cannot do it refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

import eckart
from eckart import optim
from eckart.errors import Refused
from eckart.models.modules import StructuredLinear
from eckart.parametrizations.contract import PARAMETRIZATIONS, Layer
from eckart.structures import Dense
from support import hard
from support.cases import each
from support.reparametrizing import (
    CONVOLUTIONS_ONLY,
    EVERY,
    convolutional,
    made,
    networks,
    optimizer_of,
    perceptron,
    pictures,
    same,
    train,
    trained,
)
from support.tiny import tiny_gpt2, tiny_llama
from support.together import GROWTH, both, parametrizations

everywhere = pytest.mark.parametrize("method", EVERY)
LIMITED = [name for name in EVERY if PARAMETRIZATIONS[name].limit]
LINEAR = [name for name in EVERY if name not in CONVOLUTIONS_ONLY]


@everywhere
def test_the_loss_falls(method: str) -> None:
    for network in networks(method):
        model = network()
        result = made(model, method)
        assert result.names
        assert all(isinstance(model.get_submodule(name), StructuredLinear) for name in result.names)
        optimizer = optimizer_of(model)
        losses = train(model, result.schedule(optimizer, 40), optimizer, 40)
        assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


@everywhere
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(method: str, tmp_path: Path) -> None:
    for network in networks(method):
        model = network()
        result = made(model, method, seed=3)
        optimizer = optimizer_of(model)
        hooks = result.schedule(optimizer, 12)
        train(model, hooks, optimizer, 7)
        save_file({n: t.clone() for n, t in model.state_dict().items()}, tmp_path / "model")
        save_file(hooks.state_dict(), tmp_path / "hooks")
        remembered = copy.deepcopy(optimizer.state_dict())
        train(model, hooks, optimizer, 5)

        again = network(seed=9)
        result = made(again, method, seed=3)
        again.load_state_dict(load_file(tmp_path / "model"))
        other = optimizer_of(again)
        other.load_state_dict(remembered)
        resumed = result.schedule(other, 12)
        resumed.load_state_dict(load_file(tmp_path / "hooks"))
        train(again, resumed, other, 5)
        assert resumed.done == 12
        assert same(again.state_dict(), model.state_dict())
        assert same(resumed.state_dict(), hooks.state_dict())


@everywhere
def test_what_is_finished_computes_what_was_trained_and_both_are_saved_as_compressed_models_are(
    method: str, tmp_path: Path
) -> None:
    x, y = pictures(count=4)
    for i, network in enumerate(networks(method)):
        result = trained(method, network)
        before = result.model(x)
        for at in ("trained", "finished"):
            if at == "finished":
                result.finish()
                torch.testing.assert_close(result.model(x), before, rtol=1e-9, atol=1e-11)
            eckart.save(result.model, tmp_path / f"{at}{i}")
            loaded = eckart.load(tmp_path / f"{at}{i}", network(seed=5))
            torch.testing.assert_close(loaded(x), result.model(x), rtol=1e-9, atol=1e-11)
            state, expected = loaded.state_dict(), result.model.state_dict()
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
        F.cross_entropy(result.model(x), y).backward()
        assert all(p.grad is not None for p in result.model.parameters())


@everywhere
def test_what_is_finished_may_be_adapted(method: str) -> None:
    result = trained(method, networks(method)[-1], 6)
    result.finish()
    model, (x, y) = result.model, pictures(count=4)
    before = model(x).detach()
    adapter = eckart.adapt(model, "lora", rank=2)
    torch.testing.assert_close(model(x), before)
    optimizer = torch.optim.SGD(adapter.trainable_parameters(), lr=0.1)
    for _ in range(2):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    adapted = model(x).detach()
    adapter.merge()
    torch.testing.assert_close(model(x), adapted)
    assert not torch.allclose(adapted, before)


@pytest.mark.parametrize("network", [perceptron, convolutional, tiny_gpt2])
def test_what_is_dense_in_the_end_is_an_ordinary_model(network: Callable[..., nn.Module], tmp_path: Path) -> None:
    model = network()
    kinds = {name: type(module) for name, module in model.named_modules()}
    result = made(model, "sst")
    x = pictures(count=4)[0] if network is not tiny_gpt2 else torch.arange(12).view(2, 6)
    hooks = result.schedule(optimizer_of(model), 1)
    hooks.before_step(), hooks.after_backward(), hooks.after_step()
    expected = model(x)
    result.finish()
    result.finish()
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert all(isinstance(structure, Dense) for structure in result.structures.values())
    assert all(p.requires_grad for p in model.parameters())
    if network is tiny_gpt2:
        torch.testing.assert_close(model(x).logits, expected.logits, rtol=1e-4, atol=1e-5)
        model.save_pretrained(tmp_path / "saved")
        assert "quantization_config" not in json.loads((tmp_path / "saved/config.json").read_text())
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
        assert torch.equal(again(x).logits, model(x).logits)
    else:
        torch.testing.assert_close(model(x), expected)
    eckart.compress(model, method="svd", keep=0.9)


@pytest.mark.parametrize("method", LINEAR)
def test_a_model_of_transformers_is_saved_by_itself(method: str, tmp_path: Path) -> None:
    model = tiny_llama()
    made(model, method)
    ids = torch.randint(0, 300, (2, 8), generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", LIMITED)
def test_its_limit_is_dense_training(method: str) -> None:
    for network in networks(method):
        dense, model = network(), network()
        plain = optimizer_of(dense)
        x, y = pictures()
        for _ in range(10):
            F.cross_entropy(dense(x), y).backward()
            plain.step()
            plain.zero_grad()
        result = made(model, method, **PARAMETRIZATIONS[method].limit)
        optimizer = optimizer_of(model)
        train(model, result.schedule(optimizer, 10), optimizer, 10)
        torch.testing.assert_close(model(x), dense(x), rtol=1e-7, atol=1e-9)


@everywhere
def test_the_same_seed_draws_the_same_and_no_other_random_numbers(method: str) -> None:
    for network in networks(method):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        found = []
        for seed in (4, 4):
            model = network()
            result = made(model, method, seed=seed)
            optimizer = optimizer_of(model)
            train(model, result.schedule(optimizer, 4), optimizer, 4)
            found.append(model.state_dict())
        assert torch.equal(torch.get_rng_state(), before)
        assert same(*found)


@everywhere
@each(name=["zero", "rank-one", "rank-deficient", "hilbert", "graded-columns", "1xn", "nx1", "1x1", "tall", "wide",
            "transposed", "strided", "expanded", "huge-fp32", "tiny-fp32", "subnormal-fp32"])  # fmt: skip
def test_hard_matrices(method: str, name: str) -> None:
    weight = hard.weights()[name]
    layer = Layer(weight, None, torch.Generator().manual_seed(0))
    before = weight.clone()
    try:
        structure = PARAMETRIZATIONS[method].entry(layer)
    except Refused as told:
        assert str(told)  # noqa: PT017
        return
    assert structure.shape == tuple(weight.shape)
    assert structure.dtype == weight.dtype
    assert all(torch.isfinite(p).all() for p in structure.parameters())
    assert torch.equal(weight, before)


@everywhere
def test_narrow_dtypes_are_refused_and_autocast_is_not(method: str) -> None:
    for network in networks(method):
        for dtype in (torch.bfloat16, torch.float16):
            with pytest.raises(Refused, match=rf"it is in {dtype}.*model\.float\(\)"):
                made(network(dtype=dtype), method)
        model = network(dtype=torch.float32)
        result = made(model, method)
        optimizer = optimizer_of(model)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # weights change inside
            losses = train(model, result.schedule(optimizer, 20), optimizer, 20, pictures(torch.float32))
        assert losses[-1] < losses[0]
        assert all(p.dtype == torch.float32 for p in model.parameters())


@everywhere
def test_bad_requests_change_nothing(method: str) -> None:
    network = networks(method)[-1]
    model = network()
    for words, options in {
        "has no option ranks=3; there are": {"ranks": 3},
        "matches no matrix": {"include": ["nothing"]},
        "seed='a' is a str": {"seed": "a"},
    }.items():
        with pytest.raises(Refused, match=words):
            made(model, method, **options)
    for name in PARAMETRIZATIONS[method].options:
        with pytest.raises(Refused, match=f"{name}=None is a NoneType"):
            made(model, method, **{name: None})
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(Refused, match="has 1 NaN or Inf"):
        made(model, method)
    assert not any(isinstance(module, StructuredLinear) for module in model.modules())
    with torch.device("meta"):
        empty = network()
    with pytest.raises(Refused):
        made(empty, method)


@everywhere
def test_what_is_left_dense_is_named(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(256, 256), nn.Linear(256, 1))
    nn.init.zeros_(model[1].weight)
    result = made(model, method)
    names = {name for name, module in model.named_modules() if isinstance(module, StructuredLinear)}
    assert set(result.names) == names == {"0", "1", "3", "4"} - set(result.left)
    assert all(why in str(result.glance()) for why in result.left.values())
    assert result.coverage.sentence.startswith("looked at")


def test_the_hooks_have_an_order() -> None:
    model = perceptron()
    early = optimizer_of(model)
    result = made(model, "monarch")
    with pytest.raises(Refused, match=r"does not hold what trains in 1: make it after reparametrize"):
        result.schedule(early, 2)
    with pytest.raises(Refused, match="steps=0 must be at least 1"):
        result.schedule(optimizer_of(model), 0)
    hooks = result.schedule(optimizer_of(model), 1)
    with pytest.raises(Refused, match=r"after_step\(\) is called where before_step\(\) comes next"):
        hooks.after_step()
    hooks.before_step()
    with pytest.raises(Refused, match=r"state_dict\(\) is called inside a step"):
        hooks.state_dict()
    hooks.after_backward()
    hooks.after_step()
    with pytest.raises(Refused, match="all 1 steps that the schedule was made for are over"):
        hooks.before_step()
    with pytest.raises(Refused, match=r"state of another schedule: it differs in schedule\.other"):
        hooks.load_state_dict({**hooks.state_dict(), "schedule.other": torch.zeros(1)})
    with pytest.raises(Refused, match="all 3 matrices of Sequential are compressed already"):
        made(model, "monarch")


def test_two_processes_stay_together_as_one_would_with_the_whole_batch(tmp_path: Path) -> None:
    first, second = both("parametrizations", tmp_path)
    whole = parametrizations(None)
    assert first.keys() == second.keys() == whole.keys() == {*EVERY, GROWTH}
    for name, expected in whole.items():
        for key, tensor in expected.items():
            assert torch.equal(first[name][key], second[name][key]), f"{name}, {key}"
            if name != "ssvi":  # which draws for a whole batch otherwise than for halves
                found = first[name][key]
                torch.testing.assert_close(found, tensor, rtol=1e-6, atol=1e-8, msg=f"{name}, {key}")


def run(
    method: str, *, parts: int = 1, scale: float = 1.0, compiled: bool = False, unused: bool = False, steps: int = 12
) -> tuple[nn.Sequential, eckart.Reparametrization, list[float]]:
    """A small network after some steps: of batches in parts, of a scaled loss, with a matrix that no input reaches."""
    network = networks(method)[0]()
    if unused:
        beside = nn.Conv2d(12, 16, 3) if method in CONVOLUTIONS_ONLY else nn.Linear(24, 16)
        network.add_module("beside", beside.double())
    result = made(network, method)
    layers = [module for name, module in network.named_children() if name != "beside"]
    called = nn.Sequential(*layers)
    forward = torch.compile(called, backend="eager") if compiled else called
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.0)
    hooks, losses = result.schedule(optimizer, steps), []
    x, y = pictures()
    for _ in range(steps):
        hooks.before_step()
        total = 0.0
        for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
            loss = scale * F.cross_entropy(forward(a), b) / parts
            loss.backward()
            total += float(loss.detach())
        losses.append(total)
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
    return network, result, losses


@everywhere
def test_a_batch_in_parts_is_the_batch_and_so_is_a_compiled_model(method: str) -> None:
    expected, _, _ = run(method)
    for told in ({"parts": 2}, {"compiled": True}):
        if method == "ssvi" and "parts" in told:  # which draws for a whole batch otherwise than for halves
            continue
        found, _, _ = run(method, **told)  # type: ignore[arg-type]
        for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8, msg=f"{name}, {told}")


@everywhere
def test_gradients_that_are_zero_or_missing_break_nothing(method: str) -> None:
    for told in ({"scale": 0.0}, {"unused": True}):
        network, result, losses = run(method, **told)  # type: ignore[arg-type]
        result.finish()
        assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
        if "unused" in told:
            assert losses[-1] < losses[0]
            assert "beside" in result.names


@everywhere
@pytest.mark.parametrize("optimizer", ["sgd", "muon", "galore"])
def test_another_optimizer_moves_it_too(method: str, optimizer: str) -> None:
    network = networks(method)[0]()
    result = made(network, method)
    taken: torch.optim.Optimizer
    if optimizer == "sgd":
        taken = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    else:
        split = optim.groups(network, {}, {"lr": 3e-3}, show=False)
        taken = optim.Muon(split, lr=0.02) if optimizer == "muon" else optim.GaLore(split, lr=0.02, rank=4)
    losses = train(network, result.schedule(taken, 30), taken, 30)
    assert min(losses[-2:]) < losses[0]  # in every second step maestro leaves ranks out
    result.finish()
    assert torch.isfinite(network(pictures()[0])).all()
