"""GGUF files, of which transformers reads every word once for the configuration, the tokenizer and the weights each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock
from typing import Any

ASKED_AGAIN = ("GGUFReader", "get_tensor_name_map")
"""What transformers asks the package for over and over, with the same arguments."""
_ONE_AT_A_TIME = RLock()


@contextmanager
def read_once() -> Iterator[None]:
    """Remembers inside what the package `gguf` made of a file, and of the names in an architecture."""
    package: Any = importlib.import_module("gguf")
    with _ONE_AT_A_TIME:
        before = {name: getattr(package, name) for name in ASKED_AGAIN}
        for name, make in before.items():
            setattr(package, name, cache(make))
        try:
            yield
        finally:
            for name, make in before.items():
                setattr(package, name, make)
