"""Finished groups of matrices in files, so that an interrupted run does not fit them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from eckart._version import __version__
from eckart.compressors.contract import Fitted
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.structures import from_spec
from eckart.structures.shared import bind, locate


class Store(Protocol):
    """Keeps finished groups of sites."""

    def get(self, name: str, size: int) -> Sequence[Fitted] | None: ...

    def put(self, name: str, size: int, fitted: Sequence[Fitted]) -> None: ...


class DirectoryStore:
    """Finished groups of sites as files, each whole or absent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, name: str, size: int) -> list[Fitted] | None:
        file = self.directory / f"{name}.safetensors"
        if not file.is_file():
            return None
        try:
            tensors, metadata = read_safetensors(file)
            entry = json.loads(metadata["group"])
            if entry["size"] != size:
                return None
            biases = {key: tensors.pop(key) for key in list(tensors) if key.endswith(".bias") and key.count(".") == 1}
            structures = {str(i): from_spec(spec, f"{name}[{i}]") for i, spec in enumerate(entry["structures"])}
            bind(structures)
            nn.ModuleDict(structures).load_state_dict(tensors, assign=True)
            for structure in structures.values():
                structure.check_values()
            fitted = zip(structures.items(), entry["errors"], strict=True)
            return [Fitted(structure, biases.get(f"{i}.bias"), float(error)) for (i, structure), error in fitted]
        except (OSError, KeyError, TypeError, ValueError, RuntimeError):
            return None

    def put(self, name: str, size: int, fitted: Sequence[Fitted]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        structures = {str(i): one.structure for i, one in enumerate(fitted)}
        locate(structures)
        tensors = {key: value.contiguous() for key, value in nn.ModuleDict(structures).state_dict().items()}
        tensors |= {f"{i}.bias": one.bias.contiguous() for i, one in enumerate(fitted) if one.bias is not None}
        specs, errors = [structure.spec() for structure in structures.values()], [one.error for one in fitted]
        group = json.dumps({"size": size, "errors": errors, "structures": specs})
        metadata = {STORED: __version__, "group": group, **sealed(tensors)}
        write_safetensors(tensors, self.directory / f"{name}.safetensors", metadata)
