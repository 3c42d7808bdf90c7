"""Checksums: of tensors in memory and in files alike, and different for whatever means something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.files.checksums import checksum, checksums, checksums_in_files
from eckart.files.headers import DTYPES, read_headers
from eckart.files.tensors import read_safetensors, sealed, write_safetensors


def tensors() -> dict[str, Tensor]:
    found = {name: torch.arange(24).reshape(2, 3, 4).to(dtype) for name, dtype in DTYPES.items()}
    return {**found, "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0), "strided": torch.arange(8.0)[::2]}


def test_files_and_memory_agree(tmp_path: Path) -> None:
    contents = {name: tensor.contiguous() for name, tensor in tensors().items()}
    write_safetensors(contents, tmp_path / "a.safetensors", {})
    assert checksums_in_files(read_headers([tmp_path / "a.safetensors"])) == checksums(tensors())


def test_dtype_and_shape_count() -> None:
    zeros = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(2, dtype=torch.float64)]
    assert len({checksum(tensor) for tensor in zeros}) == 4


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    contents = {"a": torch.arange(9.0), "b": torch.ones(3, dtype=torch.int16)}
    write_safetensors(contents, file, {"x": "y", **sealed(contents)})
    whole = file.read_bytes()
    assert read_safetensors(file)[0].keys() == contents.keys()
    for at in range(len(whole) - 42, len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(Refused, match=r"a\.safetensors is damaged or was changed: [ab] has checksum"):
            read_safetensors(file)


def test_equal_contents_make_equal_files(tmp_path: Path) -> None:
    metadata = {key: key for key in "qwertyuiop"}
    for i in range(8):
        write_safetensors({"a": torch.ones(2)}, tmp_path / f"{i}.safetensors", metadata)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
