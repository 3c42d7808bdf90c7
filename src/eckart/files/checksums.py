"""Checksums of tensors: CRC-32 of dtype, shape and bytes, which find any damage and any exchange that is not meant."""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from eckart.errors import Refused, abridged
from eckart.files.headers import DTYPES, Entry

T = TypeVar("T")

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_THREADS = 8
"""At most; then memory is what is waited for."""


def checksum(tensor: Tensor) -> str:
    """The checksum of a tensor, as 8 hexadecimal digits.

    >>> checksum(torch.ones(2)), checksum(torch.ones(2, 1))
    ('1064d28b', '5c07d996')
    """
    flat = tensor.detach().cpu().contiguous().flatten()
    name = _NAMES.get(tensor.dtype, str(tensor.dtype))
    data = flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
    return _checksum(name, tuple(tensor.shape), data)


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Checksums of tensors by name."""
    return dict(zip(tensors, _together(checksum, tensors.values()), strict=True))


def checksums_in_files(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Checksums of tensors in files by name, from the bytes that are there."""
    found: dict[str, str] = {}
    for file in {entry.file: None for entry in entries.values()}:
        here = {name: entry for name, entry in entries.items() if entry.file == file}
        # One file after the other, so that no more than that is in memory.
        with (
            file.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
        ):

            def of(entry: Entry, whole: memoryview = whole) -> str:
                with whole[entry.start : entry.stop] as part:
                    return _checksum(entry.dtype, entry.shape, part)

            found |= dict(zip(here, _together(of, here.values()), strict=True))
    return {name: found[name] for name in entries}


def seal(contents: Mapping[str, object]) -> str:
    """The checksum of what JSON says, which is as good as tensors at changing what they mean.

    >>> seal({"a": 1, "b": 2}) == seal({"b": 2, "a": 1})
    True
    """
    return f"{zlib.crc32(json.dumps(contents, sort_keys=True).encode()):08x}"


def check_seal(contents: Mapping[str, object], stated: object, where: str) -> None:
    """Raises Refused where JSON no longer says what it said when it was sealed."""
    if stated != seal(contents):
        raise Refused(
            f"{where} is damaged or was changed: what it says has checksum {seal(contents)}, and it was written with "
            f"{abridged(stated)}; fetch the file again"
        )


def check_checksums(entries: Mapping[str, Entry], stated: object, where: str) -> None:
    """Raises Refused where files hold anything but the tensors whose checksums are stated.

    Args:
        entries: what the files hold.
        stated: checksums by name, from JSON; None where none were written.
        where: what states them.
    """
    for problem in differences(entries, stated, where):
        raise Refused(problem)


def differences(entries: Mapping[str, Entry], stated: object, where: str) -> Iterator[str]:
    """What `check_checksums` refuses, all of it, one sentence each."""
    if stated is None:
        return
    if not isinstance(stated, Mapping) or not all(isinstance(value, str) for value in stated.values()):
        yield f'{where}: "checksums" is no map from names to checksums'
        return
    files = sorted({entry.file for entry in entries.values()})
    for name in stated.keys() - entries.keys():
        yield f"{where} has a checksum of {name}, which {files[0] if files else 'no file'} does not hold"
    for name in entries.keys() - stated.keys():
        yield f"{entries[name].file} holds {name}, of which {where} has no checksum"
    for name, found in checksums_in_files({name: entries[name] for name in entries if name in stated}).items():
        if found != stated[name]:
            yield (
                f"{entries[name].file} is damaged or was changed: {name} has checksum {found}, and {where} says "
                f"{stated[name]}; fetch the file again"
            )


def _checksum(dtype: str, shape: tuple[int, ...], data: memoryview) -> str:
    return f"{zlib.crc32(data, zlib.crc32(f'{dtype} {shape}'.encode())):08x}"


def _together(function: object, values: Iterable[T]) -> list[str]:
    """A function of each of some values; zlib lets other threads run."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, values))  # type: ignore[arg-type]
