"""The compiled library: whether it is there, which level of the processor it uses, and its two doors."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from eckart.errors import Refused
from eckart.ops.native.build import LEVELS, digest, library, sources, target

CAP = "ECKART_NATIVE"
"""The variable that caps the level: one of its names, or "off" for PyTorch alone."""


@dataclass(frozen=True)
class Library:
    """The doors of the compiled library; see `dispatch.c`.

    Attributes:
        level: the name of the level that products use.
        number: of that level.
        layouts: the number of each layout, by name.
        bfloat16: whether the processor multiplies bfloat16.
        threads: the address of PyTorch's own `parallel_for`; None where it has none, and products run in one thread.
    """

    level: str
    number: int
    layouts: dict[str, int]
    threads: int | None
    bfloat16: bool
    multiply: Any
    rows: Any


_chosen: list[Library | None] = []


def loaded() -> Library | None:
    """The library at the highest level that the processor has and `ECKART_NATIVE` allows; None where there is none.

    The variable is read once.

    Raises:
        Refused: `ECKART_NATIVE` names no level.
    """
    if not _chosen:
        _chosen.append(_allowed(os.environ.get(CAP, "")))
    return _chosen[0]


@contextmanager
def capped(level: str) -> Iterator[None]:
    """Inside, products run at most at that level; with "off" through PyTorch alone."""
    before = loaded()
    _chosen[0] = _allowed(level)
    try:
        yield
    finally:
        _chosen[0] = before


def _allowed(cap: str) -> Library | None:
    found = _opened()
    if cap == "off" or found is None:
        return None
    everywhere = list(LEVELS[_architecture()])
    if cap and cap not in everywhere:
        raise Refused(f"{CAP}={cap!r} is no level of this processor; there are {', '.join(everywhere)}, and off")
    number = min(found.number, everywhere.index(cap)) if cap else found.number
    return replace(found, level=everywhere[number], number=number)


def levels() -> list[str]:
    """The levels that this processor has, ascending; none where the library is missing."""
    found = _opened()
    return [] if found is None else list(LEVELS[_architecture()])[: found.number + 1]


def native() -> str:
    """Which compiled products are used, in words.

    Structures that are smaller than a dense matrix are multiplied by functions compiled for several levels of a
    processor, where no gradient is wanted and everything lies on the CPU; everything else runs through PyTorch. The
    variable `ECKART_NATIVE` caps the level before eckart is used: baseline, avx2, avx512 on x86-64; or off.

    >>> import eckart
    >>> print(eckart.native())  # doctest: +SKIP
    avx512 (of baseline, avx2, avx512), for quantized; threads are PyTorch's
    """
    found = loaded()
    if found is None:
        if os.environ.get(CAP) == "off":
            return f"none: {CAP}=off; everything runs through PyTorch"
        return "none: no library was compiled for this machine from these sources; everything runs through PyTorch"
    threads = "threads are PyTorch's" if found.threads else "in one thread: this PyTorch lends no threads"
    return f"{found.level} (of {', '.join(levels())}), for {', '.join(found.layouts)}; {threads}"


def _architecture() -> str:
    where = target()
    assert where is not None  # a library was compiled here
    return where[0]


@cache
def _opened() -> Library | None:
    """The library at the processor's highest level."""
    path = library()
    if target() is None or not path.exists():
        return None
    try:
        opened = ctypes.CDLL(str(path))
        run, rows, made_from = opened.eckart_run, opened.eckart_rows, opened.eckart_sources
    except (OSError, AttributeError):  # compiled for another machine, or long ago
        return None
    made_from.restype = ctypes.c_char_p
    if sources() and made_from().decode() != digest():
        return None
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    opened.eckart_layout.restype = ctypes.c_char_p
    run.argtypes = (pointer, number, pointer, size, pointer, pointer, number, pointer)
    rows.argtypes = (pointer, size, number, number, pointer, size, size, size, number, pointer)
    run.restype = rows.restype = None
    names: list[str] = []
    while name := opened.eckart_layout(len(names)):
        names.append(name.decode())
    level = opened.eckart_level()
    return Library(
        list(LEVELS[_architecture()])[level],
        level,
        {name: place for place, name in enumerate(names)},
        _threads(),
        bool(opened.eckart_bfloat16()),
        run,
        rows,
    )


def _threads() -> int | None:
    """The address of `torch_parallel_for`, of PyTorch's stable C interface."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            function = ctypes.CDLL(str(folder / name)).torch_parallel_for
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value
    return None
