"""What safetensors files say that they hold, before any of it is read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from eckart.errors import Refused
from eckart.files.regular import regular

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Of the tensors that structures are made of, by the names that files have for them."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        file: where it is.
        dtype: as the file calls it; see `DTYPES`.
        shape: its sizes.
        start: of its bytes in the file.
        stop: of its bytes in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_headers(files: Iterable[Path]) -> dict[str, Entry]:
    """What some files hold, by name.

    Raises:
        Refused: a file that is damaged, cut short or none, or a name that stands in two of them.
    """
    found: dict[str, Entry] = {}
    for file in files:
        for name, entry in _header(file).items():
            if name in found:
                raise Refused(f"{found[name].file} and {file.name} both hold {name}")
            found[name] = entry
    return found


def _header(file: Path) -> dict[str, Entry]:
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        raise Refused(f"{file} has a name that is no UTF-8, which safetensors needs: rename it") from error
    try:
        # The reader of the format checks sizes and offsets; it does not tell where the bytes are.
        with safe_open(regular(file), "pt"), file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            stated = json.loads(stream.read(length))
    except Refused:
        raise
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise Refused(f"{file} is damaged or cut short: {error}") from error
    return {
        name: Entry(file, entry["dtype"], tuple(entry["shape"]), *(8 + length + at for at in entry["data_offsets"]))
        for name, entry in stated.items()
        if name != "__metadata__"
    }
