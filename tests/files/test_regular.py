"""Only files are opened as files; what stands in their place is named at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from eckart.errors import Refused
from eckart.files.arrays import read_array
from eckart.files.headers import read_headers
from eckart.files.json import read_json
from eckart.files.tensors import read_safetensors

DOORS: dict[str, Callable[[Path], Any]] = {
    "a.json": read_json,
    "a.npy": lambda file: read_array(str(file)),
    "b.safetensors": lambda file: read_array(str(file)),
    "c.safetensors": read_safetensors,
    "d.safetensors": lambda file: read_headers([file]),
}
KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda file: os.mkfifo(file),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a directory": lambda file: file.mkdir(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DOORS)
def test_what_is_no_file_is_not_waited_for(name: str, kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / name)
    with pytest.raises(Refused, match=rf"{name} is a (pipe or a device|directory), where a file is needed"):
        DOORS[name](tmp_path / name)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "a.json").symlink_to("real.json")
    assert read_json(tmp_path / "a.json") == {}


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"m\xff")
    directory.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(directory / "a.safetensors")
    with pytest.raises(Refused, match=r"m\\udcff.a\.safetensors has a name that is no UTF-8"):
        read_headers([directory / "a.safetensors"])
