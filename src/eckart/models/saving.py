"""Saving a model with structured modules in a directory, and loading it: for any module, and as transformers does."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.directories import new_directory
from eckart.files.json import read_json, write_json
from eckart.models.checkpoint import (
    MANIFEST,
    Manifest,
    check_manifest,
    manifest,
    read_tensors,
    rebuild,
    sealed,
    state,
    structures,
    weight_files,
    write_tensors,
)
from eckart.models.presence import present
from eckart.models.tensor_checks import check_files
from eckart.models.transformers import METHOD, write_model
from eckart.structures import StructuredMatrix, Sum


def save(model: nn.Module, directory: str | os.PathLike[str]) -> None:
    """Saves any module with structured parts: `model.safetensors` (or shards) and `eckart.json`.

    Of a model of transformers it writes what its own `save_pretrained` does, which `from_pretrained` reads.

    Raises:
        Refused: the directory exists and is not empty, or the model holds no numbers.

    >>> import tempfile, torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 8))
    >>> _ = eckart.compress(net, method="svd", keep=0.6)
    >>> with tempfile.TemporaryDirectory() as d:
    ...     eckart.save(net, d)
    ...     same = eckart.load(d, torch.nn.Sequential(torch.nn.Linear(8, 8)))
    >>> torch.equal(same(torch.ones(8)), net(torch.ones(8)))
    True
    """
    present(model)
    target = Path(directory)
    with new_directory(target) as partial:
        if _is_of_transformers(model):
            write_model(model, None, partial)
            return
        write_tensors(state(model), partial)
        write_json(sealed(manifest(model), partial), partial / MANIFEST)


def load(directory: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Loads what `save` wrote into a freshly built model of the original architecture, and returns it.

    Args:
        directory: what `save` wrote.
        model: the dense model, with any weights, or built under `torch.device("meta")`.

    Raises:
        Refused: not such a directory, damaged files, or a model that does not fit.
    """
    source = Path(directory)
    entry, where = _read_manifest(source)
    devices = _devices(model)
    rebuild(model, check_manifest(entry, str(where)), entry.get("unfused", ()))
    expected = model.state_dict(keep_vars=True)
    check_files(weight_files(source), entry, str(where), expected)
    tensors = read_tensors(source)
    aliases = _aliases(expected, tensors)
    tensors |= {name: tensors[first] for name, first in aliases.items()}
    for name, tensor in tensors.items():
        if name in expected and expected[name].shape != tensor.shape:
            raise Refused(f"{name}: the file holds shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}")
    tensors = {name: tensor.to(_device_at(name, devices)) for name, tensor in tensors.items()}
    try:
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise Refused(f"{source} does not fit {type(model).__name__}: {error}") from error
    for name, first in aliases.items():
        _tie(model, name, first)
    for structure in structures(model).values():
        _one_dtype(structure)
    return model


def _devices(model: nn.Module) -> dict[str, torch.device]:
    """Where the tensors of each module are that has some; those on no device are to come to the CPU."""
    held = {name.rpartition(".")[0]: tensor.device for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: torch.device("cpu") if device.type == "meta" else device for name, device in held.items()}


def _device_at(name: str, devices: Mapping[str, torch.device]) -> torch.device:
    """That of the nearest module around a tensor."""
    while name:
        name = name.rpartition(".")[0]
        if name in devices:
            return devices[name]
    return torch.device("cpu")


def _one_dtype(structure: StructuredMatrix) -> None:
    """Gives the terms of each sum its dtype: an adapter may have been trained in a wider one than its base has."""
    for term in structure.modules():
        if isinstance(term, Sum) and len({part.dtype for part in term.operands()}) > 1:
            term.to(term.dtype)


def describe(model: nn.Module) -> None:
    """Enters the structures of a model, or of parts of one, of transformers in the configurations that belong to them.

    `save_pretrained` does so by itself; this is for who writes tensors and configuration each on its own.
    """
    inside: tuple[str, ...] = ()
    for name, part in model.named_modules():
        if _is_of_transformers(part) and not (inside and name.startswith(inside)):
            inside = (*inside, f"{name}." if name else "")
            importlib.import_module("eckart.models.transformers_saving").describe(part)


def _is_of_transformers(model: nn.Module) -> bool:
    library = sys.modules.get("transformers.modeling_utils")
    return library is not None and isinstance(model, library.PreTrainedModel)


def _read_manifest(source: Path) -> tuple[Manifest, Path]:
    """The manifest of a directory, and the file that it is in."""
    if (source / MANIFEST).is_file():
        return read_json(source / MANIFEST), source / MANIFEST
    config = source / "config.json"
    entry: Any = read_json(config).get("quantization_config") if config.is_file() else None
    if not isinstance(entry, Mapping) or entry.get("quant_method") != METHOD:
        raise Refused(f"{source} has no {MANIFEST}; was it written by eckart.save?")
    return dict(entry), config


def _aliases(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name that shares another's tensor in the model and was not saved: the name that was."""
    saved = {id(expected[name]): name for name in tensors if name in expected}
    return {n: saved[id(t)] for n, t in expected.items() if n not in tensors and id(t) in saved}


def _tie(model: nn.Module, name: str, first: str) -> None:
    """Makes `name` the tensor that `first` is."""
    (parent, _, leaf), (source, _, tensor) = name.rpartition("."), first.rpartition(".")
    setattr(model.get_submodule(parent), leaf, getattr(model.get_submodule(source), tensor))
