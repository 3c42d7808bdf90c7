"""Adapters beside convolutions: all of them on a small net, Tucker cores, PEFT's layout, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.run import find_bases
from eckart.statistics.gradients import mean_gradients
from support import hard
from support.adapting import IN_PLACE, close, has_matrix, unquantized

CONVOLUTIONS = ["first", "second", "short", "third"]


class Output(NamedTuple):
    logits: Tensor
    loss: Tensor | None


class Net(nn.Module):
    """Convolutions of all sorts; one works in groups, activations work in place, the last layer is linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(8, 12, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), bias=False)
        self.short = nn.Conv2d(8, 12, 1, stride=2)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12, padding=1)
        self.third = nn.Conv2d(12, 8, 3, padding="same")
        self.last = nn.Linear(8, 5)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Output:
        a = self.act(self.first(images))
        b = self.act(self.depthwise(self.second(a)[..., :4] + self.short(a)[..., :4]))
        logits = self.last(self.third(b).mean((2, 3)))
        return Output(logits, None if labels is None else F.cross_entropy(logits, labels))


def net(method: str = "") -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net().eval()
    if method in IN_PLACE:
        eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    return model


def batch(seed: int = 3) -> dict[str, Tensor]:
    return {"images": hard.normal(6, 2, 10, 10, seed=seed).float(), "labels": torch.arange(6) % 5}


def logits(model: nn.Module) -> Tensor:
    found: Tensor = model(batch()["images"]).logits
    return found.detach()


def adapted(model: nn.Module, method: str, **options: object) -> Adapter:
    return eckart.adapt(model, method, rank=2, calibration=[batch(1), batch(2)], **options)  # type: ignore[arg-type]


def train(model: nn.Module, adapter: Adapter, steps: int = 10) -> list[float]:
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=3e-2, weight_decay=0.0)
    adapter.plan(steps)
    losses = []
    for _ in range(steps):
        loss = model(**batch()).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        (loss + adapter.regulariser()).backward()
        optimizer.step()
        adapter.step()
    return [*losses, float(model(**batch()).loss.detach())]


@pytest.mark.parametrize("method", ADAPTERS)
def test_every_method_beside_convolutions(method: str, tmp_path: Path) -> None:
    model = net(method)
    before = logits(model)
    adapter = adapted(model, method)
    split = any(place.taken for place in adapter.places.values())
    if unquantized(adapter):
        assert close(logits(model), before, 1e-5) if split else torch.equal(logits(model), before)
    for name, place in adapter.places.items():
        count = sum(p.numel() for p in place.path().parameters() if p.requires_grad)
        patch = None if place.geometry is None else place.geometry.patch
        assert count == adapter.method.numbers(place.shape, patch, adapter.ranks[name])
    losses = train(model, adapter)
    assert losses[-1] < losses[0]
    trained = logits(model)
    if has_matrix(adapter):
        adapter.merge()
        assert close(logits(model), trained, 1e-4 if unquantized(adapter) else 1)
        adapter.unmerge()
        assert close(logits(model), trained)
    eckart.save_adapter(adapter, tmp_path / "a")
    again = net(method)
    eckart.load_adapter(again, tmp_path / "a")
    assert close(logits(again), trained, 1e-5)
    adapter.deactivate()
    if unquantized(adapter):
        assert close(logits(model), before)


def test_several_beside_compressed_convolutions() -> None:
    model = net()
    eckart.compress(model, "tucker-2", keep=0.8, of="linear-parameters")
    before = logits(model)
    first = adapted(model, "pissa", name="first", include=CONVOLUTIONS)
    assert close(logits(model), before)
    train(model, first, 2)
    one = logits(model)
    second = adapted(model, "flora", name="second")
    assert close(logits(model), before)
    first.activate()
    assert close(logits(model), one)
    first.merge()
    first.remove()
    second.remove()
    assert close(logits(model), one)


def test_mean_gradients_are_those_of_autograd() -> None:
    model = net()
    modules = find_bases(model)
    found = mean_gradients(model, modules, [batch(1), batch(2)])
    (sum(model(**batch(seed)).loss for seed in (1, 2)) / 2).backward()
    for name, module in modules.items():
        torch.testing.assert_close(found[name], module.weight.grad.flatten(1), rtol=1e-4, atol=1e-7)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="is not its own labels"):
        mean_gradients(model, modules, [batch(1)["images"]])


@pytest.mark.parametrize("method", ["lora", "pissa", "flora"])
def test_peft_reads_what_is_written_for_it(method: str, tmp_path: Path) -> None:
    model = net()
    adapter = adapted(model, method, include=["first", "short", "third", "last"])
    train(model, adapter)
    eckart.save_adapter(adapter, tmp_path / "a")
    errors = eckart.save_peft(adapter, tmp_path / "p", rank=4)
    assert max(errors.values()) < 1e-3
    theirs = peft.PeftModel.from_pretrained(net(), tmp_path / "p").eval()
    assert close(logits(theirs), logits(model), 1e-4)
    assert close(logits(theirs.merge_and_unload()), logits(model), 1e-4)
    again = net()
    eckart.load_adapter(again, tmp_path / "p")
    assert close(logits(again), logits(model), 1e-4)


def test_what_peft_writes_is_read(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = peft.LoraConfig(
            r=3, lora_alpha=5, target_modules=["first", "short", "third", "last"], init_lora_weights=False
        )
        theirs = peft.get_peft_model(net(), config).eval()
    theirs.save_pretrained(tmp_path)
    model = net()
    eckart.load_adapter(model, tmp_path)
    assert close(logits(model), logits(theirs), 1e-5)


def test_a_dilated_convolution_is_not_written_for_peft(tmp_path: Path) -> None:
    adapter = adapted(net(), "lora", include=["second"])
    with pytest.raises(ValueError, match=r"second is a convolution of dilation \(1, 2\)"):
        eckart.save_peft(adapter, tmp_path / "p")


def test_a_budget_counts_the_numbers_of_a_core() -> None:
    model = net()
    adapter = eckart.adapt(model, "flora", parameters=700)
    total = sum(p.numel() for p in adapter.trainable_parameters())
    # The head allows a rank of 5 only, the last convolution 8.
    assert total <= 700
    assert len(set(adapter.ranks.values())) > 1 or total > 400


def test_what_is_no_matrix_is_left_or_refused_by_name(tmp_path: Path) -> None:
    model = net()
    assert list(find_bases(model)) == [*CONVOLUTIONS, "last"]
    with pytest.raises(ValueError, match="'depthwise' matches no matrix: depthwise: a convolution in 12 groups"):
        eckart.adapt(model, "lora", rank=2, include=["depthwise"])
    with pytest.raises(ValueError, match=r"short: rank=9 is not in 1..8"):
        eckart.adapt(model, "lora", rank=9, include=["short"])
    adapter = adapted(model, "lora", include=["third"])
    eckart.save_adapter(adapter, tmp_path / "a")
    other = copy.deepcopy(net())
    other.third = nn.Conv2d(108, 8, 1)
    with pytest.raises(ValueError, match=r"has patches \(3, 3\); in this Net it is \(1, 1\)"):
        eckart.load_adapter(other, tmp_path / "a")
