"""Adapters that were trained apart, added up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import eckart
from eckart.jobs.adapt.adapter import Adapter
from support.adapting import adapted, close, ids, logits, made
from support.one_layer import normal, stirred
from support.tiny import tiny_llama


def two(net: nn.Module, method: str, alpha: float | None = None) -> list[Adapter]:
    adapters = []
    for i in range(2):
        adapters.append(eckart.adapt(net, method, rank=2, name=f"task{i}", seed=i, alpha=alpha))
        for path in adapters[-1].paths.values():
            stirred(path, seed=10 * i)
    return adapters


@pytest.mark.parametrize(("method", "alpha"), [("lora", 6.0), ("pissa", None), ("flylora", 6.0), ("svfit", None)])
def test_the_sum_adds_what_each_changes(method: str, alpha: float | None, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(12, 10))
    x = normal(7, 12, seed=3)
    before = net(x).detach()
    adapters = two(net, method, alpha)
    changes = []
    for adapter in adapters:
        adapter.activate()
        changes.append(net(x).detach() - before)
    combined = eckart.combine(adapters, [0.5, 2.0])
    expected = before + 0.5 * changes[0] + 2.0 * changes[1]
    torch.testing.assert_close(net(x).detach(), expected, rtol=1e-4, atol=1e-4)
    assert combined.ranks == {"0": 4}
    assert not combined.trainable_parameters()
    eckart.save_adapter(combined, tmp_path / "sum")
    if method == "flylora":
        with pytest.raises(eckart.Refused, match="depends on its input"):
            combined.merge()
    else:
        combined.merge()
        torch.testing.assert_close(net(x).detach(), expected, rtol=1e-4, atol=1e-4)
        combined.unmerge()
    for adapter in [*adapters, combined]:
        adapter.remove()
    torch.testing.assert_close(net(x).detach(), before)
    eckart.load_adapter(net, tmp_path / "sum")
    torch.testing.assert_close(net(x).detach(), expected, rtol=1e-4, atol=1e-4)


def test_a_sum_beside_convolutions_and_of_matrices_that_differ() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 4))
    x = normal(2, 3, 6, 6)
    before = net(x).detach()
    one = eckart.adapt(net, "flylora", rank=2, name="one", include=["0"])
    other = eckart.adapt(net, "flylora", rank=2, name="other", seed=1)
    for path in [*one.paths.values(), *other.paths.values()]:
        stirred(path)
    combined = eckart.combine([one, other], [0.0, 1.0])
    both = net(x).detach()
    other.activate()
    torch.testing.assert_close(net(x).detach(), both, rtol=1e-4, atol=1e-4)
    assert not close(both, before)
    assert set(combined.places) == {"0", "2"}


def test_what_cannot_be_combined_is_refused() -> None:
    model, another = tiny_llama(), tiny_llama()
    lora, pissa = adapted(model, "lora", name="a"), adapted(model, "pissa", name="b")
    before = logits(model, ids())
    with pytest.raises(eckart.Refused, match="no adapter to combine"):
        eckart.combine([])
    with pytest.raises(eckart.Refused, match="pissa and lora cannot be combined"):
        eckart.combine([lora, pissa])
    with pytest.raises(eckart.Refused, match="of another model"):
        eckart.combine([lora, adapted(another, "lora")])
    for weights in ([1.0], [1.0, float("nan")]):
        with pytest.raises(eckart.Refused, match="must be 2 finite numbers"):
            eckart.combine([lora, lora], weights)
    for adapters, factors, told in (
        (lora, None, "a list of Adapter objects is wanted"),
        ([lora, "b"], None, "a list of Adapter objects is wanted"),
        ([lora], 2.0, "a list of numbers or None is wanted"),
        ([lora], ["x"], "a list of numbers or None is wanted"),
    ):
        with pytest.raises(eckart.Refused, match=told):
            eckart.combine(adapters, factors)  # type: ignore[arg-type]
    with pytest.raises(eckart.Refused, match="has an adapter 'b' already"):
        eckart.combine([lora], name="b")
    in_place = made("welore")
    with pytest.raises(eckart.Refused, match="replaces W"):
        eckart.combine([adapted(in_place, "welore")])
    assert close(logits(model, ids()), before)
    pissa.merge()
    with pytest.raises(eckart.Refused, match="is merged"):
        eckart.combine([lora])
