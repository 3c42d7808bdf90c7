"""What transformers asks the reader of GGUF files for again is not made again, and afterwards all is as it was."""

from __future__ import annotations

import sys
import types

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
