"""`eckart verify`: every kind of directory, whole and damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM

import eckart
from eckart.cli.app import main
from eckart.errors import Refused
from eckart.jobs.exports.dense import write as to_dense_directory
from eckart.jobs.verify import verify
from support.saving import IDS
from support.tiny import save_tiny, tiny_llama


def plain(directory: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 16))
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters")
    eckart.save(model, directory)


def compressed(directory: Path) -> None:
    model = tiny_llama()
    eckart.compress(model, "svd", keep=0.8, of="linear-parameters", calibration=IDS)
    eckart.save(model, directory)


def adapter(directory: Path) -> None:
    eckart.save_adapter(eckart.adapt(nn.Sequential(nn.Linear(16, 16)), "lora", 2), directory)


def peft(directory: Path) -> None:
    eckart.save_peft(eckart.adapt(nn.Sequential(nn.Linear(16, 16)), "lora", 2), directory)


KINDS: dict[str, Callable[[Path], None]] = {
    "a plain module": plain,
    "a compressed model": compressed,
    "an adapter": adapter,
    "an adapter of PEFT": peft,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KINDS[kind](tmp_path / "saved")
    found = verify(tmp_path / "saved")
    assert (found.tensors > 0, found.unsealed, found.problems) == (True, 0, [])
    assert main(["verify", str(tmp_path / "saved")]) == 0
    assert f"{found.tensors} tensors verified" in " ".join(capsys.readouterr().out.split())
    (file,) = (tmp_path / "saved").glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 8
    file.write_bytes(data)
    assert main(["verify", str(tmp_path / "saved")]) == 1
    assert "is damaged or was changed" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(tmp_path / "saved"), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1
    file.write_bytes(data[:-1])
    assert main(["verify", str(tmp_path / "saved")]) == 1
    assert "cut short" in capsys.readouterr().out


def unseal(config: dict[str, Any]) -> None:
    del config["quantization_config"]["seal"]


def forget_a_module(config: dict[str, Any]) -> None:
    entry = config["quantization_config"]
    del entry["seal"], entry["checksums"], entry["modules"][next(iter(entry["modules"]))]


def another_width(config: dict[str, Any]) -> None:
    config["hidden_size"] //= 2


def no_object(config: dict[str, Any]) -> None:
    config["quantization_config"] = [config["quantization_config"]]


@pytest.mark.parametrize("change", [unseal, forget_a_module, another_width, no_object])
def test_what_cannot_be_loaded_is_not_verified(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    compressed(tmp_path / "saved")
    (tmp_path / "saved" / "report.json").write_text('{"eckart": "0.1.0"}')
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert not verify(tmp_path / "saved").problems
    change(config)
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(Exception):  # noqa: B017  # transformers' own for some
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert len(verify(tmp_path / "saved").problems) == 1


def test_a_file_of_a_version_without_checksums(tmp_path: Path) -> None:
    plain(tmp_path / "saved")
    contents = json.loads((tmp_path / "saved" / "eckart.json").read_text())
    old = {key: value for key, value in contents.items() if key not in ("seal", "checksums")}
    (tmp_path / "saved" / "eckart.json").write_text(json.dumps(old))
    found = verify(tmp_path / "saved")
    assert (found.tensors, found.unsealed, found.problems) == (0, 3, [])
    eckart.load(tmp_path / "saved", nn.Sequential(nn.Linear(16, 16)))


def test_a_report(tmp_path: Path) -> None:
    plain(tmp_path / "saved")
    report: dict[str, Any] = {"eckart": "0.1.0", "size": {"bytes": {"before": 10, "after": 7}}}
    (tmp_path / "saved" / "report.json").write_text(json.dumps(report))
    assert "report.json says that the weights take 7 bytes" in verify(tmp_path / "saved").problems[0]
    (tmp_path / "saved" / "report.json").write_text("{")
    assert "report.json cannot be read as JSON" in verify(tmp_path / "saved").problems[0]
    diagnosis = tmp_path / "diagnosis"
    diagnosis.mkdir()
    (diagnosis / "diagnosis.json").write_text('{"eckart": "0.1.0"}')
    assert verify(diagnosis).reports == ["diagnosis.json"]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no directory"):
        verify(tmp_path / "none")
    with pytest.raises(Refused, match="holds nothing that eckart wrote"):
        verify(save_tiny(tmp_path / "dense"))
    assert main(["verify", str(tmp_path / "none")]) == 2


def test_a_dense_export_is_nothing_of_eckarts(tmp_path: Path) -> None:
    save_tiny(
        tmp_path / "small",
        eckart.compress(tiny_llama(), "svd", keep=0.8, of="linear-parameters", calibration=IDS).model,
    )
    to_dense_directory(str(tmp_path / "small"), tmp_path / "dense")
    with pytest.raises(Refused, match="holds nothing that eckart wrote"):
        verify(tmp_path / "dense")


@pytest.mark.parametrize("exchange", ["names", "files"])
def test_tensors_that_changed_places(exchange: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters")
    eckart.save(model, tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    if exchange == "names":
        tensors = {str(1 - int(k[0])) + k[1:]: v for k, v in tensors.items()}
        save_file(tensors, file)
    else:
        other = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
        eckart.compress(other, "svd", keep=0.6, of="linear-parameters")
        eckart.save(other, tmp_path / "other")
        shutil.copy(tmp_path / "other" / "model.safetensors", file)
    assert verify(tmp_path / "saved").problems
    with pytest.raises(Refused, match="damaged or was changed"):
        eckart.load(tmp_path / "saved", nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)))
