"""Any damage to what was saved is refused, or does not matter: never other values, never another exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM

import eckart
from eckart.errors import LONGEST, Refused
from eckart.jobs.verify import verify
from eckart.models.saving import load
from support.mutations import damaged_bytes, damaged_json, write
from support.saving import IDS
from support.tiny import tiny_llama

METHODS = ["kfac", "rtn", "gptq", "wanda", "cospadi", "monarch", "llm-int8"]
INPUT = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
SLOWLY = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def layers(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32, bias=False)).eval()


def outcome(make: Callable[[], nn.Module], same: dict[str, torch.Tensor]) -> None:
    """Fails unless a model is refused, in few words, or has the same tensors and acts alike."""
    try:
        model = make()
    except Refused as error:
        assert len(str(error)) <= LONGEST + 10  # noqa: PT017
        assert "\x1b" not in str(error)  # noqa: PT017
        return
    found = model.state_dict()
    assert found.keys() == same.keys()
    for name, tensor in same.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.fixture(scope="module", params=METHODS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    model = layers(0)
    eckart.compress(model, request.param, keep=0.6, of="bytes", calibration=[INPUT])
    directory = tmp_path_factory.mktemp("plain") / "saved"
    eckart.save(model, directory)
    return directory, model


@SLOWLY
@given(data=st.data())
def test_json_of_a_plain_module(data: st.DataObject, plain: tuple[Path, nn.Module], tmp_path: Path) -> None:
    source, model = plain
    directory = tmp_path / "damaged"
    shutil.copytree(source, directory, dirs_exist_ok=True)
    write(data.draw(damaged_json(json.loads((source / "eckart.json").read_text()))), directory / "eckart.json")

    def make() -> nn.Module:
        found = load(directory, layers(1))
        assert torch.equal(found(INPUT), model(INPUT))
        return found

    outcome(make, model.state_dict())


@SLOWLY
@given(data=st.data())
def test_bytes_of_a_plain_module(data: st.DataObject, plain: tuple[Path, nn.Module], tmp_path: Path) -> None:
    source, model = plain
    directory = tmp_path / "damaged"
    shutil.copytree(source, directory, dirs_exist_ok=True)
    whole = (source / "model.safetensors").read_bytes()
    changed = data.draw(damaged_bytes(whole))
    (directory / "model.safetensors").write_bytes(changed)
    outcome(lambda: load(directory, layers(1)), model.state_dict())
    found = verify(directory)
    assert not found.problems or changed != whole


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    model = tiny_llama()
    eckart.compress(model, "auto", keep=0.6, of="bytes", calibration=IDS, embeddings=True)
    directory = tmp_path_factory.mktemp("llama") / "saved"
    eckart.save(model, directory)
    return directory, AutoModelForCausalLM.from_pretrained(directory)


@SLOWLY
@given(data=st.data())
def test_json_of_a_compressed_model(data: st.DataObject, compressed: tuple[Path, nn.Module], tmp_path: Path) -> None:
    source, model = compressed
    directory = tmp_path / "damaged"
    shutil.copytree(source, directory, dirs_exist_ok=True)
    config: dict[str, Any] = json.loads((source / "config.json").read_text())
    inner = config["quantization_config"]
    entry = data.draw(damaged_json({key: value for key, value in inner.items() if key != "quant_method"}))
    write({**config, "quantization_config": {"quant_method": "eckart", **entry}}, directory / "config.json")
    outcome(lambda: AutoModelForCausalLM.from_pretrained(directory), model.state_dict())


@SLOWLY
@given(data=st.data())
def test_bytes_of_a_compressed_model(data: st.DataObject, compressed: tuple[Path, nn.Module], tmp_path: Path) -> None:
    source, model = compressed
    directory = tmp_path / "damaged"
    shutil.copytree(source, directory, dirs_exist_ok=True)
    whole = (source / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(data.draw(damaged_bytes(whole)))
    outcome(lambda: AutoModelForCausalLM.from_pretrained(directory), model.state_dict())
