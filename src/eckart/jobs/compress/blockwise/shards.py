"""A compressed model written block by block, one file each, and what of it was written before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from eckart._version import __version__
from eckart.errors import Refused
from eckart.files.json import write_json
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.jobs.compress.blockwise.records import put_record, record
from eckart.jobs.compress.choices import Choice
from eckart.models import checkpoint


class Shards:
    """The files of a model that is compressed unit by unit: its blocks, then what is in none.

    Args:
        model: the compressed one, as far as it is; its blocks are on the meta device.
        dense: a tree of the same tensors in which blocks are loaded.
        prefix: name of the list of blocks.
        blocks: how many.
        directory: where they are kept until all are there.
    """

    def __init__(self, model: nn.Module, dense: nn.Module, prefix: str, blocks: int, directory: Path) -> None:
        self._model, self._dense, self._prefix = model, dense, prefix
        self._count = blocks + 1
        self._directory = directory

    def write(self, unit: int, choice: Choice, errors: Mapping[str, float]) -> None:
        """Writes a unit that is loaded and compressed, and lets go of its tensors.

        Args:
            unit: a block, or behind them what is in none.
            choice, errors: of its groups and of its matrices.
        """
        tensors = self._tensors(unit)
        modules = {n: each for n, each in checkpoint.manifest(self._model)["modules"].items() if self._is_of(unit, n)}
        write_safetensors(tensors, self._file(unit), {"format": "pt", STORED: __version__, **sealed(tensors)})
        put_record(self._record(unit), {"choice": choice, "errors": dict(errors), "modules": modules})
        if unit < self._count - 1:
            self._model.get_submodule(f"{self._prefix}.{unit}").to("meta")

    def restored(self, unit: int, choice: Choice | None = None) -> tuple[Choice, dict[str, float]] | None:
        """Has the structures of a unit that was written before in the model; its choice and errors.

        Args:
            unit: as above.
            choice: what it has to be; None for whatever it was.

        Returns:
            None where it is not there, damaged, or of another choice; the model is as it was then.
        """
        found = record(self._record(unit))
        if found is None or (choice is not None and found[0]["choice"] != choice):
            return None
        try:
            read_safetensors(self._file(unit))
        except (Refused, OSError):
            return None
        checkpoint.rebuild(self._model, found[0]["modules"])
        return found[0]["choice"], found[0]["errors"]

    def place(self, directory: Path) -> None:
        """Puts all files into a directory, with their index."""
        weight_map, total = {}, 0
        for unit in range(self._count):
            file = self._file(unit)
            try:
                os.link(file, directory / file.name)
            except OSError:  # a file system without links
                shutil.copyfile(file, directory / file.name)
            for name, tensor in read_safetensors(file)[0].items():
                weight_map[name] = file.name
                total += tensor.numel() * tensor.element_size()
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(index, directory / "model.safetensors.index.json")

    def _tensors(self, unit: int) -> dict[str, Tensor]:
        """The tensors of a unit under the names of the compressed model, each once."""
        loaded = self._dense.state_dict(keep_vars=True)
        ties = getattr(self._model, "all_tied_weights_keys", None) or {}
        seen: dict[int, str] = {}
        found: dict[str, Tensor] = {}
        state = self._model.state_dict(keep_vars=True)
        for name in sorted(state, key=lambda name: name in ties):
            if not self._is_of(unit, name):
                continue
            tensor = loaded[name] if state[name].is_meta else state[name]
            if id(tensor) in seen:
                continue  # tied
            seen[id(tensor)] = name
            found[name] = tensor.detach().cpu().contiguous()
        places: set[int] = set()
        for name, tensor in found.items():
            place = tensor.untyped_storage().data_ptr()
            found[name] = tensor.clone() if place in places else tensor
            places.add(place)
        return {name: found[name] for name in state if name in found}

    def _is_of(self, unit: int, name: str) -> bool:
        if unit < self._count - 1:
            return name.startswith(f"{self._prefix}.{unit}.")
        return not any(name.startswith(f"{self._prefix}.{block}.") for block in range(unit))

    def _file(self, unit: int) -> Path:
        return self._directory / f"model-{unit + 1:05d}-of-{self._count:05d}.safetensors"

    def _record(self, unit: int) -> Path:
        return self._directory / f"built-{unit:05d}.safetensors"
