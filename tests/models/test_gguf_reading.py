"""What transformers asks the reader of GGUF files for again is not made again, and afterwards all is as it was."""

from __future__ import annotations

import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from eckart.models.gguf_reading import ASKED_AGAIN, read_once


def test_what_is_asked_for_again_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(name: str) -> object:
        made.append(name)
        return object()

    package = types.ModuleType("gguf")
    for name in ASKED_AGAIN:
        setattr(package, name, make)
    monkeypatch.setitem(sys.modules, "gguf", package)
    with read_once():
        first = package.GGUFReader("a")
        assert package.GGUFReader("a") is first is not package.GGUFReader("b")
    assert made == ["a", "b"]
    assert package.GGUFReader is make
    assert package.get_tensor_name_map is make


def test_threads_leave_the_package_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("gguf")
    for name in ASKED_AGAIN:
        setattr(package, name, len)
    monkeypatch.setitem(sys.modules, "gguf", package)
    began = Barrier(2, timeout=5)

    def read(_: int) -> None:
        began.wait()
        with read_once():
            time.sleep(0.01)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, range(2)))
    assert all(getattr(package, name) is len for name in ASKED_AGAIN)
