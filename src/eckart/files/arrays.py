"""Arrays of numbers in files: .npy and .safetensors, never anything that could run code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eckart.errors import Refused
from eckart.files.atomic import replacing
from eckart.files.regular import regular
from eckart.files.tensors import write_safetensors

SUFFIXES = (".npy", ".safetensors")
NAME = "embeddings"
"""Of the tensor in a .safetensors file that is written here."""


def read_array(source: str) -> Tensor:
    """The array of a file, its pages read as they are used; changes to it stay in memory.

    Args:
        source: FILE.npy, FILE.safetensors with one tensor, or FILE.safetensors:NAME.

    Raises:
        Refused: a file that cannot be read or is of another kind, a .npy of anything but real numbers, or a name
            that is missing or not there.
    """
    file, separator, name = source.rpartition(".safetensors:")
    if separator:
        return _read_safetensors(f"{file}.safetensors", name)
    if source.endswith(".safetensors"):
        return _read_safetensors(source, None)
    if source.endswith(".npy"):
        return _read_npy(source)
    raise Refused(f"{source} is neither .npy nor .safetensors (or FILE.safetensors:NAME); save the array as one")


def _read_npy(file: str) -> Tensor:
    try:
        array = np.lib.format.open_memmap(regular(Path(file)), mode="c")
    except Refused:
        raise
    except (OSError, ValueError, EOFError) as error:
        hint = ""
        if "object" in str(error).lower():
            hint = "; such an array is never loaded, as that can run code: save numbers, array.astype('float32')"
        raise Refused(f"{file} cannot be read as .npy: {error}{hint}") from error
    if array.dtype.kind not in "fiu":
        raise Refused(f"{file} holds {array.dtype}, not real numbers; save it with array.astype('float32')")
    if array.dtype.itemsize > 8:
        return torch.from_numpy(array.astype(np.float64))
    # PyTorch has no array of the other byte order.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _read_safetensors(file: str, name: str | None) -> Tensor:
    try:
        with safe_open(regular(Path(file)), "pt") as opened:
            names = sorted(opened.keys())
            if name is None and len(names) == 1:
                name = names[0]
            if name in names:
                found: Tensor = opened.get_tensor(name)
                return found
    except (OSError, SafetensorError) as error:
        raise Refused(f"{file} cannot be read as .safetensors: {error}") from error
    held = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if name is None:
        raise Refused(f"{file} holds {len(names)} tensors ({held}); name one, as in {file}:{[*names, 'NAME'][0]}")
    raise Refused(f"{file} has no tensor {name!r}; it holds {held}")


def check_new_file(file: str, *suffixes: str) -> None:
    """Raises Refused where `file` is taken, cannot be made, or has none of the suffixes, if there are any."""
    target = Path(file)
    if suffixes and target.suffix not in suffixes:
        raise Refused(f"{file} must end in {' or '.join(suffixes)}")
    if target.exists() or target.is_symlink():
        raise Refused(f"{file} exists; name another file or remove it")
    parent = target.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise Refused(f"{file} cannot be written: {parent} is no directory that can be written")


def write_array(array: Tensor, file: str) -> None:
    """Writes .safetensors with one tensor, or else .npy, into a new file, whole or not at all."""
    target = Path(file)
    if target.suffix == ".safetensors":
        write_safetensors({NAME: array.contiguous()}, target, {}, new=True)
        return
    with replacing(target, new=True) as temporary, temporary.open("wb") as stream:
        np.save(stream, array.numpy(), allow_pickle=False)
