"""Files that were cut, edited or made up are refused, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import eckart
from eckart.cli.app import main
from eckart.models import transformers as hf
from eckart.structures import Dense
from support.saving import IDS, edit_json, edit_tensors, net
from support.tiny import tiny_llama


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def garbage(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])


def empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def huge_header(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def permuted(tensors: dict[str, Tensor]) -> str:
    return next(name for name in tensors if name.endswith(".index"))


def out_of_range(directory: Path) -> None:
    edit_tensors(directory, lambda t: t[permuted(t)].__setitem__(0, 10_000))


def negative(directory: Path) -> None:
    edit_tensors(directory, lambda t: t[permuted(t)].__setitem__(0, -1))


def missing_tensor(directory: Path) -> None:
    edit_tensors(directory, lambda t: t.pop(permuted(t)))


def missing_dense_tensor(directory: Path) -> None:
    edit_tensors(directory, lambda t: t.pop(next(n for n in t if n.endswith(("norm.weight", "first.bias")))))


def wrong_tensor_shape(directory: Path) -> None:
    edit_tensors(directory, lambda t: t.update({permuted(t): torch.zeros(3, dtype=torch.int32)}))


def outside_index(name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        file = directory / "model.safetensors"
        tensors = list(load_file(file))
        target = directory.parent / "outside.safetensors"
        shutil.move(file, target)
        where = str(target) if name == "absolute" else name
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, where)}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        save_file({"unused": torch.ones(1)}, directory / "model-00001-of-00001.safetensors")

    return change


def broken_index(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    (directory / "model.safetensors.index.json").write_text("{")


def missing_shard(directory: Path) -> None:
    tensors = list(load_file(directory / "model.safetensors"))
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    weight_map = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    weight_map[tensors[0]] = "model-00002-of-00002.safetensors"
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def structures(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [m for m in manifest["modules"].values() if "structure" in m]


def unknown_kind(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"]["kind"] = "wavelet"


def unknown_child(manifest: dict[str, Any]) -> None:
    spec = structures(manifest)[0]["structure"]
    child = {**spec, "kind": "os.system"}
    structures(manifest)[0]["structure"] = {"kind": "sum", "shape": spec["shape"], "children": [child]}


def unknown_module(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["module"] = "convolution"


def wrong_shape(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"]["shape"][0] += 1


def other_shape(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"] = Dense(torch.ones(3, 5)).spec()


def no_structure(manifest: dict[str, Any]) -> None:
    del structures(manifest)[0]["structure"]


def bad_entry(manifest: dict[str, Any]) -> None:
    manifest["modules"][next(iter(manifest["modules"]))] = "linear"


def bad_leaves(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"] = {"kind": "dense", "shape": [12, 12], "leaves": {"weight": ["complex64", 2]}}


def huge_leaf(manifest: dict[str, Any]) -> None:
    spec = {"kind": "dense", "shape": [10**9, 10**9], "leaves": {"weight": ["float32", 10**9, 10**9]}}
    structures(manifest)[0]["structure"] = spec


def huge_missing(manifest: dict[str, Any]) -> None:
    # Fits outside, and no tensor of it is in the files.
    spec = structures(manifest)[0]["structure"]
    (out, columns), n = spec["shape"], 10**12
    left = {"kind": "dense", "shape": [out, n], "leaves": {"weight": ["float32", out, n]}}
    right = {"kind": "dense", "shape": [n, columns], "leaves": {"weight": ["float32", n, columns]}}
    chain = {"kind": "chain", "shape": [out, columns], "children": [left, right]}
    structures(manifest)[0]["structure"] = {"kind": "sum", "shape": [out, columns], "children": [chain]}


def infinite_leaf(manifest: dict[str, Any]) -> None:
    spec = {"kind": "dense", "shape": [12, 12], "leaves": {"weight": ["float32", float("inf"), 12]}}
    structures(manifest)[0]["structure"] = spec


def shape_of_nothing(manifest: dict[str, Any]) -> None:
    structures(manifest)[0]["structure"]["shape"] = None


def nested(manifest: dict[str, Any]) -> None:
    spec = structures(manifest)[0]["structure"]
    for _ in range(100):
        spec = {"kind": "sum", "shape": spec["shape"], "children": [spec]}
    structures(manifest)[0]["structure"] = spec


def nested_in_json(directory: Path) -> None:
    for name in ("eckart.json", "config.json"):
        if (directory / name).exists():
            (directory / name).write_text('{"modules": ' + "[" * 100_000 + "]" * 100_000 + "}")


def no_such_module(manifest: dict[str, Any]) -> None:
    manifest["modules"]["layers.99.fc"] = structures(manifest)[0]


def a_container(manifest: dict[str, Any]) -> None:
    manifest["modules"][""] = structures(manifest)[0]


def newer(manifest: dict[str, Any]) -> None:
    manifest["format"], manifest["version"] = 99, "7.1"


def no_format(manifest: dict[str, Any]) -> None:
    del manifest["format"]


def no_modules(manifest: dict[str, Any]) -> None:
    manifest["modules"] = ["first"]


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, "model.safetensors is damaged or cut short"),
    "garbage": (garbage, "model.safetensors is damaged or cut short"),
    "empty": (empty, "model.safetensors is damaged or cut short"),
    "huge header": (huge_header, "model.safetensors is damaged or cut short"),
    "index out of range": (out_of_range, "index .*10000.* outside|index .* 10000"),
    "negative index": (negative, "index .*-1"),
    "missing tensor": (missing_tensor, r"\.index|Permutation: index"),
    "missing dense tensor": (missing_dense_tensor, "weight|bias|norm"),
    "tensor of another shape": (wrong_tensor_shape, r"\.index.*shape|shape.*\.index|mismatch"),
    "index to the parent": (outside_index("../outside.safetensors"), "not a safetensors file of this directory"),
    "absolute index": (outside_index("absolute"), "not a safetensors file of this directory"),
    "broken index": (broken_index, "index.json cannot be read as JSON"),
    "nested in JSON": (nested_in_json, r"(eckart|config)\.json cannot be read as JSON: maximum recursion depth"),
    "missing shard": (missing_shard, "has no model-00002-of-00002.safetensors"),
}

MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown kind": (unknown_kind, "unknown structure kind 'wavelet'; this version knows .*chain"),
    "unknown child": (unknown_child, "unknown structure kind 'os.system'"),
    "unknown module": (unknown_module, "unknown module 'convolution'"),
    "wrong shape": (wrong_shape, "states shape"),
    "other shape": (other_shape, r"a structure of shape \(3, 5\) does not fit"),
    "no structure": (no_structure, "not a structure spec"),
    "bad entry": (bad_entry, "malformed: 'linear'"),
    "bad leaves": (bad_leaves, "dtype 'complex64' is not one of"),
    "huge leaf": (huge_leaf, "does not fit|malformed"),
    "huge and missing": (huge_missing, r"parts\.0\.parts\.0\.weight"),
    "infinite leaf": (infinite_leaf, "malformed 'dense' spec: the shape of a leaf is integers"),
    "shape of nothing": (shape_of_nothing, "states shape None"),
    "nested": (nested, "structures are nested more than 64 deep"),
    "no such module": (no_such_module, "names a module 'layers.99.fc' that .* does not have"),
    "a container": (a_container, "cannot stand in for"),
    "newer": (newer, r"written by eckart 7.1 in format 99; .*upgrade with pip install -U eckart"),
    "no format": (no_format, "in format None"),
    "no modules": (no_modules, "not an eckart manifest"),
}


def unsealed(edit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """The edit of a manifest that was written without checksums, by which what else is checked can be seen."""

    def change(manifest: dict[str, Any]) -> None:
        manifest.pop("seal")
        manifest.pop("checksums")
        edit(manifest)

    return change


@pytest.fixture(scope="module")
def plain_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plain") / "saved"
    model = net()
    eckart.compress(model, "kfac", keep=0.75, of="bytes", calibration=IDS % 20, embeddings=True)
    eckart.save(model, directory)
    return directory


@pytest.mark.parametrize("damage", [*FILES, *MANIFESTS])
def test_damage_to_a_plain_checkpoint(damage: str, plain_saved: Path, tmp_path: Path) -> None:
    directory = tmp_path / "saved"
    shutil.copytree(plain_saved, directory)
    if damage in FILES:
        change, message = FILES[damage]
        change(directory)
    else:
        edit, message = MANIFESTS[damage]
        edit_json(directory / "eckart.json", unsealed(edit))
    with pytest.raises(ValueError, match=message):
        eckart.load(directory, net())


@pytest.mark.parametrize("damage", [*FILES, *MANIFESTS])
def test_damage_to_a_compressed_directory(
    damage: str,
    saved: dict[str, tuple[nn.Module, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    texts: tuple[str, str],
) -> None:
    directory = tmp_path / "saved"
    shutil.copytree(saved["kfac"][1], directory)
    if damage in FILES:
        change, message = FILES[damage]
        change(directory)
    else:
        edit, message = MANIFESTS[damage]
        edit_json(directory / "config.json", lambda config: unsealed(edit)(config["quantization_config"]))
    with pytest.raises(ValueError, match=message):
        hf.load_model(str(directory))
    if damage in ("cut", "newer", "no such module", "index out of range"):
        assert main(["evaluate", str(directory), "--text", texts[0], "--no-speed"]) == 2
        assert "eckart: error:" in capsys.readouterr().err


def test_a_directory_that_eckart_did_not_write(tmp_path: Path, llama_directory: Path) -> None:
    with pytest.raises(ValueError, match=r"has no eckart.json; was it written by eckart.save\?"):
        eckart.load(llama_directory, tiny_llama())
    with pytest.raises(ValueError, match=r"has no eckart.json"):
        eckart.load(tmp_path / "nowhere", tiny_llama())


def test_another_architecture_is_refused(plain_saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names a module 'embed' that Sequential does not have"):
        eckart.load(plain_saved, nn.Sequential(nn.Linear(3, 3)))
    eckart.save(nn.Sequential(nn.Linear(3, 3)), tmp_path / "a")
    with pytest.raises(ValueError, match=r"0.(weight|bias): the file holds shape \(3.*\), not \(5"):
        eckart.load(tmp_path / "a", nn.Sequential(nn.Linear(3, 5)))
    with pytest.raises(ValueError, match=r"(?s)does not fit Sequential: .*1.weight"):
        eckart.load(tmp_path / "a", nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
