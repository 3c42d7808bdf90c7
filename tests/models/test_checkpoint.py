"""Plain modules, saved and loaded bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import eckart
from eckart.files.json import write_json
from eckart.models import checkpoint, saving
from eckart.models.modules import TiedLinear
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.structures import Dense
from support.saving import IDS, Net, assert_equal, net, squeezed
from support.tiny import HIDDEN


@pytest.mark.parametrize("options", [{"embeddings": True}, {"head": True, "exclude": ("first",)}, {}])
@pytest.mark.parametrize("method", ["svd", "lord", "kfac", "gptq"])
def test_a_plain_module_comes_back_bit_for_bit(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    model = net()
    if options or method != "gptq":
        model = squeezed(model, method, **options) if options else squeezed(model, method, embeddings=True)
    eckart.save(model, tmp_path / "saved")
    with torch.device("meta"):
        skeleton = Net().eval()
    for target in (net(seed=1), skeleton):
        loaded = eckart.load(tmp_path / "saved", target)
        assert loaded is target
        assert_equal(loaded, model)
        assert torch.equal(loaded(IDS[0] % 20), model(IDS[0] % 20))
        assert loaded.first is loaded.second
        if isinstance(model.head, TiedLinear):
            assert loaded.head.structure is loaded.embed.structure
        else:
            assert loaded.head.weight is loaded.embed.weight
        assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())
        assert not any(t.is_meta for t in loaded.state_dict().values())
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["eckart.json", "model.safetensors"]


def test_training_a_loaded_module_keeps_its_ties(tmp_path: Path) -> None:
    model = squeezed(net(), include=("first",), embeddings=True)
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", net(seed=1))
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(IDS[0] % 20).square().mean().backward()
    optimizer.step()
    assert torch.equal(loaded.head.weight, loaded.embed.weight)
    assert not torch.equal(loaded.head.weight, model.head.weight)


def test_two_embeddings_over_one_structure(tmp_path: Path) -> None:
    def make() -> nn.ModuleDict:
        pair = nn.ModuleDict({"a": nn.Embedding(30, 8), "b": nn.Embedding(30, 8)})
        pair["b"].weight = pair["a"].weight
        return pair

    model = make()
    eckart.compress(model, "svd", keep=0.6, of="bytes", embeddings=True)
    ids = torch.tensor([1, 29])
    assert torch.equal(model["a"](ids), model["b"](ids))
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", make())
    assert torch.equal(loaded["a"](ids), model["a"](ids))
    assert loaded["b"].structure is loaded["a"].structure


def test_saving_leaves_a_full_directory_alone(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine").write_text("x")
    with pytest.raises(ValueError, match="saved exists and is not empty"):
        eckart.save(net(), tmp_path / "saved")
    assert [p.name for p in tmp_path.rglob("*")] == ["saved", "mine"]
    eckart.save(net(), tmp_path / "new")
    assert not (tmp_path / "new.partial").exists()


def test_an_error_while_saving_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_json", fail)
    with pytest.raises(OSError, match="No space left"):
        eckart.save(net(), tmp_path / "saved")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shard_bytes", [1, 700, 2000, 10**6])
def test_shards(tmp_path: Path, shard_bytes: int) -> None:
    model = squeezed(net(), embeddings=True)
    tensors = checkpoint.state(model)
    checkpoint.write_tensors(tensors, tmp_path, shard_bytes)
    sizes = [sum(t.numel() * t.element_size() for t in load_file(f).values()) for f in tmp_path.glob("*.safetensors")]
    assert all(size <= max(shard_bytes, 12 * 20 * 4) for size in sizes)
    assert len(sizes) == (1 if shard_bytes == 10**6 else len(tensors) if shard_bytes == 1 else len(sizes))
    back = checkpoint.read_tensors(tmp_path)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], t) for name, t in tensors.items())
    if len(sizes) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(sizes)
        write_json(checkpoint.manifest(model), tmp_path / "eckart.json")
        assert_equal(eckart.load(tmp_path, net(seed=1)), model)


def test_replaced_by_hand(tmp_path: Path) -> None:
    model = net()
    for site in find_sites(model, ["first"]):
        replace(model, site, Dense(torch.eye(12)), torch.ones(12))
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", net(seed=2))
    assert_equal(loaded, model)
    assert HIDDEN > 12
