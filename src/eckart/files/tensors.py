"""Safetensors files: written whole, and where their tensors begin."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from eckart.errors import Refused
from eckart.files.atomic import replacing


def write_safetensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str], *, new: bool = False
) -> None:
    """Writes a file whole or not at all, with the permissions of any other new file.

    Args:
        tensors: contiguous, no two of which share storage.
        file: replaced if it exists.
        metadata: text for the header.
        new: whether the file may not exist.

    Raises:
        OSError: the disk is full, or the directory cannot be written.
    """
    try:
        with replacing(file, new=new) as temporary:
            mode = temporary.stat().st_mode
            save_file(dict(tensors), temporary, metadata=dict(metadata))
            temporary.chmod(mode)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def tensors_begin(file: Path) -> int:
    """Bytes of a file before its tensors: the length of its header, and the header; Refused where there is none."""
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
    if begin > file.stat().st_size:
        raise Refused(f"{file} is no safetensors file, or a part of one: write it again")
    return begin
