"""Hidden states between blocks, and gradients by them, in files: each whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart._version import __version__
from eckart.errors import Refused
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors


class Activations:
    """What flows between blocks, by boundary and batch; boundary b lies in front of block b.

    Args:
        directory: of the files.
        name: what they begin with.
        batches: how many there are.
        device: where they are read to.
    """

    def __init__(self, directory: Path, name: str, batches: int, device: torch.device) -> None:
        self._directory = directory
        self._device = device
        self._name = name
        self.batches = batches

    def put(self, boundary: int, batch: int, tensor: Tensor, note: Mapping[str, Any] | None = None) -> None:
        """Writes the tensor of a batch, and numbers with it."""
        tensors = {"tensor": tensor.detach().cpu().contiguous().clone()}
        metadata = {STORED: __version__, "note": json.dumps(dict(note or {})), **sealed(tensors)}
        write_safetensors(tensors, self._file(boundary, batch), metadata)

    def get(self, boundary: int, batch: int) -> Tensor:
        """The tensor of a batch, mapped where it stays in the memory of the CPU."""
        return read_safetensors(self._file(boundary, batch))[0]["tensor"].to(self._device)

    def note(self, boundary: int, batch: int) -> dict[str, Any]:
        """The numbers that were written with it."""
        found: dict[str, Any] = json.loads(read_safetensors(self._file(boundary, batch))[1]["note"])
        return found

    def whole(self, boundary: int) -> bool:
        """Whether those of all batches are there and undamaged."""
        try:
            for batch in range(self.batches):
                self.get(boundary, batch)
        except Refused:
            return False
        return True

    def drop(self, boundary: int) -> None:
        """Removes those of a boundary."""
        for batch in range(self.batches):
            self._file(boundary, batch).unlink(missing_ok=True)

    def _file(self, boundary: int, batch: int) -> Path:
        return self._directory / f"{self._name}-{boundary:05d}-{batch:06d}.safetensors"
