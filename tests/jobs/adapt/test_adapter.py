"""The life of an adapter: merging and switching give back what was there bit for bit, and nonsense is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapter import Adapter
from support.adapting import IN_PLACE, MODELS, adapted, has_matrix, ids, logits, made, train, unquantized
from support.tiny import tiny_llama

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def stored(model: nn.Module) -> dict[str, Tensor]:
    """All frozen tensors of a model by name, those of wrapped layers by the names they had before."""
    frozen = {n: p for n, p in model.named_parameters() if ".paths." not in n and ".taken." not in n}
    return {name.replace(".base.", "."): p.detach().clone() for name, p in frozen.items()}


def shaken(adapter: Adapter, size: float = 0.5) -> None:
    """Moves all that trains far, as no training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in adapter.trainable_parameters():
            p.add_(size * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", sorted(ADAPTERS.keys() - IN_PLACE))
def test_merging_and_switching_change_no_bit(method: str, dtype: torch.dtype) -> None:
    model = tiny_llama().to(dtype)
    before = stored(model)
    adapter = adapted(model, method)
    shaken(adapter)
    beside = stored(model)
    for _ in range(5):
        if has_matrix(adapter):
            adapter.merge()
            adapter.unmerge()
        assert all(torch.equal(now, beside[name]) for name, now in stored(model).items())
        adapter.deactivate()
        if unquantized(adapter):
            assert all(torch.equal(now, before[name]) for name, now in stored(model).items())
        adapter.activate()
    if has_matrix(adapter):
        adapter.merge()
    adapter.deactivate()
    plain = unquantized(adapter)
    adapter.remove()
    assert not plain or all(torch.equal(now, before[name]) for name, now in stored(model).items())


@pytest.mark.parametrize("by", ["svd", "rtn"])
@pytest.mark.parametrize("method", ["lora", "pissa", "welore"])
def test_beside_structures_too(method: str, by: str) -> None:
    if method in IN_PLACE and by == "rtn":
        pytest.skip("it trains low-rank factors, and there are none")
    model = tiny_llama().bfloat16()
    eckart.compress(model, by, keep=0.8, of="bytes")
    before = logits(model, ids())
    adapter = adapted(model, method)
    shaken(adapter)
    moved = logits(model, ids())
    for _ in range(3):
        adapter.merge()
        adapter.unmerge()
        assert torch.equal(logits(model, ids()), moved)
        adapter.deactivate()
        assert torch.equal(logits(model, ids()), before)
        adapter.activate()


@pytest.mark.parametrize("kind", MODELS)
def test_switching_between_adapters_that_split_changes_no_bit(kind: str) -> None:
    model = MODELS[kind]().bfloat16()
    before = stored(model)
    made_of = {name: adapted(model, name, name=name) for name in ("pissa", "olora", "lora")}
    outputs = {}
    for adapter in made_of.values():
        adapter.activate()
        shaken(adapter, 0.05)
        outputs[adapter.name] = logits(model, ids())
    for name in ("olora", "pissa", "lora", "pissa", "olora"):
        made_of[name].activate()
        assert torch.equal(logits(model, ids()), outputs[name])
    made_of["olora"].merge()
    made_of["pissa"].activate()
    assert torch.equal(logits(model, ids()), outputs["pissa"])
    for adapter in made_of.values():
        adapter.remove()
    assert dict.fromkeys(before, True) == {n: torch.equal(p, before[n]) for n, p in stored(model).items()}


def test_a_merged_adapter_that_is_removed_stays_in_the_model() -> None:
    model = made("pissa")
    adapter = adapted(model, "pissa")
    train(model, adapter)
    adapter.merge()
    merged = logits(model, ids())
    adapter.remove()
    assert torch.equal(logits(model, ids()), merged)
    assert sorted(stored(model)) == sorted(stored(tiny_llama()))


def test_moving_a_model_while_an_adapter_is_merged() -> None:
    model = tiny_llama()
    adapter = adapted(model, "pissa")
    train(model, adapter)
    adapter.merge()
    model.double()
    adapter.unmerge()
    adapter.deactivate()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    before = stored(tiny_llama())
    assert all(torch.equal(p.float(), before[name]) for name, p in stored(model).items())


REMOVED: dict[str, Callable[[Adapter, Path], object]] = {
    "remove": lambda adapter, _: adapter.remove(),
    "activate": lambda adapter, _: adapter.activate(),
    "deactivate": lambda adapter, _: adapter.deactivate(),
    "merge": lambda adapter, _: adapter.merge(),
    "unmerge": lambda adapter, _: adapter.unmerge(),
    "trainable_parameters": lambda adapter, _: adapter.trainable_parameters(),
    "save_adapter": lambda adapter, path: eckart.save_adapter(adapter, path / "a"),
    "save_peft": lambda adapter, path: eckart.save_peft(adapter, path / "p"),
}


@pytest.mark.parametrize("deed", REMOVED)
def test_what_was_removed_is_refused(deed: str, tmp_path: Path) -> None:
    model = tiny_llama()
    other = adapted(model, "lora", name="other")
    adapter = adapted(model, "lora", name="gone")
    adapter.remove()
    other.activate()
    adapted(model, "lora", name="gone")
    other.activate()
    with pytest.raises(eckart.Refused, match="adapter 'gone' was removed"):
        REMOVED[deed](adapter, tmp_path)
    assert all(p.requires_grad for p in other.trainable_parameters())
    assert not list(tmp_path.iterdir())


def test_out_of_turn() -> None:
    model = tiny_llama()
    first = adapted(model, "lora", name="first")
    with pytest.raises(eckart.Refused, match="'first' is not merged"):
        first.unmerge()
    first.merge()
    with pytest.raises(eckart.Refused, match="'first' is merged already"):
        first.merge()
    with pytest.raises(eckart.Refused, match=r"'first' is merged: call its remove\(\)"):
        adapted(model, "lora", name="second")
    first.unmerge()
    second = adapted(model, "lora", name="second", include=["q_proj"])
    with pytest.raises(eckart.Refused, match="'first' is not active"):
        first.merge()
    with pytest.raises(eckart.Refused, match="has an adapter 'second' already"):
        adapted(model, "lora", name="second")
    second.remove()
    first.activate()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", ["lora", "pissa", "osf"])
def test_an_adapter_beside_its_model_or_a_smaller_version_is_no_news(method: str, kind: str, tmp_path: Path) -> None:
    model = MODELS[kind]()
    adapted(model, "olora", name="other")
    adapter = adapted(model, method)
    train(model, adapter)
    if kind == "gpt2":
        adapter.merge()
    eckart.save_adapter(adapter, tmp_path / "a")
    eckart.load_adapter(MODELS[kind](), tmp_path / "a")
    eckart.load_adapter(MODELS[kind]().bfloat16(), tmp_path / "a")
    small = MODELS[kind]()
    eckart.compress(small, "rtn", keep=0.7, of="bytes")
    eckart.load_adapter(small, tmp_path / "a")


@pytest.mark.parametrize("method", ["lora", "pissa"])
def test_an_adapter_of_another_model_of_the_same_shapes_is_told(method: str, tmp_path: Path) -> None:
    adapter = adapted(tiny_llama(), method)
    eckart.save_adapter(adapter, tmp_path)
    with pytest.warns(UserWarning, match="trained beside other matrices than those of this model"):
        eckart.load_adapter(tiny_llama(seed=1), tmp_path)


@pytest.mark.parametrize("method", ["lq-lora", "lora-ga", "lora"])
def test_layers_that_no_gradient_reaches_are_told(method: str) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
            nn.init.zeros_(self.head.weight)

        def forward(self, x: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
            z = self.head(self.inner(x).relu())
            return SimpleNamespace(logits=z, loss=None if labels is None else nn.functional.cross_entropy(z, labels))

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = {"x": torch.randn(8, 16), "labels": torch.arange(8) % 4}
        adapter = eckart.adapt(Classifier(), method, rank=2, calibration=[data])
    said = [str(each.message) for each in told if "no gradient reaches 1 matrices (inner)" in str(each.message)]
    assert len(said) == (method != "lora")
    assert [text for text in adapter.warnings if text in said] == said
