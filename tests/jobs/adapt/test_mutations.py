"""Any damage to a saved adapter is refused, or does not matter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import eckart
from eckart.errors import LONGEST, Refused
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.verify import verify
from support.mutations import damaged_bytes, damaged_json, write

INPUT = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
METHODS = ["lora", "pissa", "loca", "snell", "loftq"]
SLOWLY = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Saved = tuple[Path, torch.Tensor]


def layers() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 32)).eval()


@pytest.fixture(scope="module", params=METHODS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    model = layers()
    adapter = eckart.adapt(model, request.param, 2)
    with torch.no_grad():
        for parameter in adapter.trainable_parameters():
            parameter.add_(0.1)
    directory = tmp_path_factory.mktemp("adapter") / "saved"
    eckart.save_adapter(adapter, directory)
    return directory, model(INPUT).detach()


def outcome(directory: Path, expected: torch.Tensor) -> None:
    model = layers()
    try:
        adapter: Adapter = eckart.load_adapter(model, directory)
    except Refused as error:
        assert len(str(error)) <= LONGEST + 10  # noqa: PT017
        return
    assert torch.equal(model(INPUT), expected)
    assert adapter.trainable_parameters()


@SLOWLY
@given(data=st.data())
def test_json(data: st.DataObject, saved: Saved, tmp_path: Path) -> None:
    source, expected = saved
    shutil.copytree(source, tmp_path / "damaged", dirs_exist_ok=True)
    file = tmp_path / "damaged" / "adapter.json"
    write(data.draw(damaged_json(json.loads((source / "adapter.json").read_text()))), file)
    outcome(tmp_path / "damaged", expected)


@SLOWLY
@given(data=st.data())
def test_bytes(data: st.DataObject, saved: Saved, tmp_path: Path) -> None:
    source, expected = saved
    shutil.copytree(source, tmp_path / "damaged", dirs_exist_ok=True)
    whole = (source / "adapter.safetensors").read_bytes()
    changed = data.draw(damaged_bytes(whole))
    (tmp_path / "damaged" / "adapter.safetensors").write_bytes(changed)
    outcome(tmp_path / "damaged", expected)
    assert not verify(tmp_path / "damaged").problems or changed != whole


CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "16 bits for 32": lambda t: t.update({k: v.half() for k, v in t.items() if v.is_floating_point()}),
    "integers for floats": lambda t: t.update({k: v.long() for k, v in t.items() if v.is_floating_point()}),
    "one more": lambda t: t.update({"0/path/other": torch.ones(2)}),
    "one fewer": lambda t: t.pop(min(t)),
    "another value": lambda t: t[min(t)].flatten()[:1].add_(1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sealed", [True, False])
def test_tensors(change: str, sealed: bool, saved: Saved, tmp_path: Path) -> None:
    source, _ = saved
    shutil.copytree(source, tmp_path / "damaged")
    file = tmp_path / "damaged" / "adapter.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    CHANGES[change](tensors)
    save_file(tensors, file)
    if not sealed:  # as versions before checksums wrote it
        contents = json.loads((source / "adapter.json").read_text())
        write(
            {key: v for key, v in contents.items() if key not in ("seal", "checksums")},
            tmp_path / "damaged" / "adapter.json",
        )
        if change == "another value":
            return
    assert verify(tmp_path / "damaged").problems
    with pytest.raises(Refused):
        eckart.load_adapter(layers(), tmp_path / "damaged")
