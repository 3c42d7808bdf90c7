"""The blocks of a model read from its files when they are worked on, and let go of afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.headers import DTYPES, Entry, read_headers

PROBED = 64
"""Numbers at each end of a tensor by which it is known to be the one in the file."""


class BlockFiles:
    """Where the tensors of the blocks of a model are, which are on the meta device but for the time of their use.

    Args:
        model: of transformers, with the weights that the files hold; the parameters and saved buffers of its blocks
            are replaced by some on the meta device.
        prefix: name of its list of blocks.
        files: safetensors.
        device: where a block is while it is worked on, and what is in none stays.

    Attributes:
        bytes: of the largest block.

    Raises:
        Refused: the files hold a tensor of a block under another name, or in another form, than the model has it.
    """

    def __init__(self, model: nn.Module, prefix: str, files: Sequence[Path], device: torch.device) -> None:
        self.prefix = prefix
        self._device = device
        entries = read_headers(files)
        self._keys = [_keys_of(model, f"{prefix}.{i}", entries) for i in range(len(_blocks(model, prefix)))]
        self._files = {name: entries[key].file for keys in self._keys for name, key in keys.items()}
        self.bytes = max(sum(entries[key].stop - entries[key].start for key in keys.values()) for keys in self._keys)
        for i in range(len(self._keys)):
            self._leave(model, i)
        _move(model, device)

    def __len__(self) -> int:
        return len(self._keys)

    @contextmanager
    def loaded(self, model: nn.Module, block: int) -> Iterator[nn.Module]:
        """A block of a model like that, its tensors mapped from the files inside, and on no device afterwards."""
        keys = self._keys[block]
        try:
            for file in sorted({self._files[name] for name in keys}):
                with safe_open(file, "pt") as opened:
                    for name, key in keys.items():
                        if self._files[name] == file:
                            _set(model, name, opened.get_tensor(key).to(self._device))
            yield model.get_submodule(f"{self.prefix}.{block}")
        finally:
            self._leave(model, block)

    def _leave(self, model: nn.Module, block: int) -> None:
        for name, tensor in _state(model, f"{self.prefix}.{block}").items():
            if not tensor.is_meta:
                _set(model, name, torch.empty_like(tensor, device="meta"))


def _blocks(model: nn.Module, prefix: str) -> nn.ModuleList:
    found = model.get_submodule(prefix)
    assert isinstance(found, nn.ModuleList)
    return found


def _state(model: nn.Module, block: str) -> dict[str, Tensor]:
    """The parameters and saved buffers of a block, by their names in the model."""
    found: dict[str, Tensor] = model.get_submodule(block).state_dict(prefix=f"{block}.", keep_vars=True)
    return found


def _set(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Gives a tensor of a model, parameter or buffer, other numbers."""
    parent, _, leaf = name.rpartition(".")
    holder = model.get_submodule(parent)
    if leaf in holder._buffers:
        holder._buffers[leaf] = tensor
    else:
        holder._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)


def _move(model: nn.Module, device: torch.device) -> None:
    """Moves what is not on the meta device; a tensor that several modules hold stays one."""
    moved: dict[int, tuple[Tensor, Tensor]] = {}
    for module in model.modules():
        tables: list[dict[str, Any]] = [module._parameters, module._buffers]
        for table in tables:
            for name, tensor in table.items():
                if tensor is None or tensor.is_meta or tensor.device == device:
                    continue
                if id(tensor) not in moved:
                    there = tensor.detach().to(device)
                    if isinstance(tensor, nn.Parameter):
                        there = nn.Parameter(there, requires_grad=tensor.requires_grad)
                    moved[id(tensor)] = tensor, there
                table[name] = moved[id(tensor)][1]


def _keys_of(model: nn.Module, block: str, entries: dict[str, Entry]) -> dict[str, str]:
    """What the tensors of a block are called in the files, by their names in the model."""
    base = getattr(model, "base_model_prefix", "")
    others = {id(t) for n, t in model.state_dict(keep_vars=True).items() if not n.startswith(f"{block}.")}
    keys = {}
    for name, tensor in _state(model, block).items():
        key = next((k for k in (name, name.removeprefix(f"{base}."), f"{base}.{name}") if k in entries), None)
        if id(tensor) in others:
            raise Refused(f"{name} is a tensor of another block too, so that blocks cannot be read one by one")
        if key is None or not _same(tensor, entries[key], key):
            raise Refused(
                f"{name} is not stored under that name and in that form, so that blocks cannot be read one by one: "
                "where there is memory for it, load the model once and write it with save_pretrained(NEW_DIR, "
                "save_original_format=False)"
            )
        keys[name] = key
    return keys


def _same(tensor: Tensor, entry: Entry, key: str) -> bool:
    """Whether a tensor of a model is the one in a file, by its dtype, its shape and both of its ends."""
    if DTYPES.get(entry.dtype) != tensor.dtype or entry.shape != tuple(tensor.shape):
        return False
    with safe_open(entry.file, "pt") as opened:
        held = opened.get_tensor(key).flatten()
    flat = tensor.detach().flatten()
    return torch.equal(flat[:PROBED], held[:PROBED]) and torch.equal(flat[-PROBED:], held[-PROBED:])
