"""Safetensors files: written whole, read whole, and where their tensors begin."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from eckart.errors import Refused
from eckart.files.atomic import replacing
from eckart.files.checksums import check_checksums, checksums
from eckart.files.headers import read_headers
from eckart.files.regular import regular

CHECKSUMS = "checksums"
"""Key of the checksums of tensors, in the header of their file or in the JSON beside it."""


SEAL = "seal"
"""Key of the checksum of the JSON beside it; there where those of tensors are."""


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
    with system_errors(file), replacing(file, new=new) as temporary:
        mode = temporary.stat().st_mode
        save_file(dict(tensors), temporary, metadata=dict(metadata))
        _in_order(temporary)
        temporary.chmod(mode)


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """What safetensors says of a full disk, or of a file that cannot be written, as the OSError that it comes from."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def tensors_begin(file: Path) -> int:
    """Bytes of a file before its tensors: the length of its header, and the header; Refused where there is none."""
    with file.open("rb") as stream:
        begin = 8 + int.from_bytes(stream.read(8), "little")
    if begin > file.stat().st_size:
        raise Refused(f"{file} is no safetensors file, or a part of one: write it again")
    return begin


def _in_order(file: Path) -> None:
    """Brings the text of a header into the order of its keys, which is any otherwise: equal contents, equal files."""
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            stream.seek(8)
            stream.write(text.ljust(length))


def sealed(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Text for the header by which `read_safetensors` finds damage."""
    return {CHECKSUMS: json.dumps(checksums(tensors))}


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, mapped, and the text of its header.

    Raises:
        Refused: it is not there, damaged, or not what its checksums say.
    """
    try:
        entries = read_headers([regular(file)])
        with safe_open(file, "pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  (not a mapping)
        if CHECKSUMS in metadata:
            check_checksums(entries, json.loads(metadata[CHECKSUMS]), "its header")
    except Refused:
        raise
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise Refused(f"{file} cannot be read: {error}") from error
    return tensors, metadata
