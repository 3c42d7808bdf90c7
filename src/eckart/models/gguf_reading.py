"""GGUF files, of which transformers reads every word once for the configuration, the tokenizer and the weights each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
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
    with _ONE_AT_A_TIME, replaced(package, {name: cache(getattr(package, name)) for name in ASKED_AGAIN}):
        yield


@contextmanager
def without_bar() -> Iterator[None]:
    """Without the bar that transformers draws of the tensors of a file, whatever its logging was told."""
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    with _ONE_AT_A_TIME, replaced(reader, {"tqdm": lambda tensors, **_: tensors}):
        yield


@contextmanager
def replaced(module: Any, others: Mapping[str, Any]) -> Iterator[None]:
    """Other things in the place of those that a module calls by these names; what it does not have, it does not get."""
    before = {name: getattr(module, name) for name in others if hasattr(module, name)}
    for name in before:
        setattr(module, name, others[name])
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(module, name, own)
