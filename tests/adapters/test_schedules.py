"""Adapters whose schedules have a state: stopped and gone on with, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eckart
from eckart.adapters import loca
from eckart.jobs.adapt.train import train
from eckart.jobs.learning.loop import Training
from eckart.structures import Scattered
from support.adapting import examples, ids, logits
from support.one_layer import only
from support.tiny import tiny_llama


def assert_goes_on(method: str, directory: Path, steps: int, every: int) -> None:
    class Stop(Exception):
        pass

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == every + 1:
            raise Stop

    ends, training = [], Training(steps=steps, every=every, rate=1e-2)
    directory.mkdir(exist_ok=True)
    for file in (directory / "whole", directory / "stopped"):
        if file.name == "stopped":
            adapter = eckart.adapt(tiny_llama(), method, rank=2)
            with pytest.raises(Stop):
                train(adapter, examples(), [], training, checkpoint=file, progress=stop)
        model = tiny_llama()
        adapter = eckart.adapt(model, method, rank=2)
        train(adapter, examples(), [], training, checkpoint=file)
        ends.append({k: t for path in adapter.paths.values() for k, t in path.state_dict().items()})
    assert all(torch.equal(t, ends[1][k]) for k, t in ends[0].items())


def test_loca_goes_on_in_the_middle_of_a_turn_of_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loca, "TURN", 3)
    assert_goes_on("loca", tmp_path, steps=16, every=5)


@pytest.mark.parametrize("method", ["sara", "snella", "flylora", "diffora"])
def test_goes_on_at_every_stage(method: str, tmp_path: Path) -> None:
    for every in (3, 6):
        assert_goes_on(method, tmp_path / str(every), steps=8, every=every)


def test_a_moved_adapter_is_saved_and_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loca, "TURN", 3)
    model = tiny_llama()
    adapter = eckart.adapt(model, "loca", rank=2, alpha=4)
    before = {name: only(path, Scattered).places.clone() for name, path in adapter.paths.items()}
    train(adapter, examples(), [], Training(steps=12, rate=1e-2))
    assert any(not torch.equal(only(path, Scattered).places, before[name]) for name, path in adapter.paths.items())
    eckart.save_adapter(adapter, tmp_path / "a")
    other = tiny_llama()
    eckart.load_adapter(other, tmp_path / "a")
    assert torch.equal(logits(other, ids()), logits(model, ids()))
