"""Blocks of a model that are read from its files while they are worked on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from eckart.errors import Refused
from eckart.models.block_files import BlockFiles
from eckart.models.checkpoint import weight_files
from support.zoo import zoo


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_is_there_inside_and_on_no_device_outside(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    made, _ = zoo()[name]()
    made.to(dtype)
    dense: Any = made
    dense.save_pretrained(tmp_path, max_shard_size="10KB")
    prefix = "transformer.h" if name == "GPT2" else "model.layers"
    model = type(dense).from_pretrained(tmp_path)
    assert len(weight_files(tmp_path)) > 1
    files = BlockFiles(model, prefix, weight_files(tmp_path), torch.device("cpu"))
    block = dense.get_submodule(f"{prefix}.1")
    assert len(files) == 2
    assert files.bytes == sum(t.numel() * t.element_size() for t in block.state_dict().values())
    wanted = dict(dense.named_parameters())
    for i in (1, 0, 1):
        with files.loaded(model, i):
            for key, p in model.named_parameters():
                here = key.startswith(f"{prefix}.{i}.") or not key.startswith(prefix)
                assert p.is_meta != here
                assert p.dtype == dtype
                assert p.is_meta or torch.equal(p, wanted[key])
    assert all(p.is_meta for p in model.get_submodule(prefix).parameters())


def test_an_error_inside_leaves_no_block(tmp_path: Path) -> None:
    made: Any = zoo()["Llama"]()[0]
    made.save_pretrained(tmp_path)
    files = BlockFiles(made, "model.layers", weight_files(tmp_path), torch.device("cpu"))
    with pytest.raises(ZeroDivisionError), files.loaded(made, 0):
        raise ZeroDivisionError
    assert all(p.is_meta for p in made.model.layers.parameters())


@pytest.mark.parametrize("change", ["renamed", "other numbers", "other dtype"])
def test_files_of_another_model_are_refused_and_it_stays(change: str, tmp_path: Path) -> None:
    made: Any = zoo()["Llama"]()[0]
    made.save_pretrained(tmp_path)
    file, key = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(file)
    if change == "renamed":
        tensors["else"] = tensors.pop(key)
    else:
        tensors[key] = tensors[key] + 1 if change == "other numbers" else tensors[key].half()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(Refused, match=f"{key} is not stored under that name and in that form"):
        BlockFiles(made, "model.layers", weight_files(tmp_path), torch.device("cpu"))
    assert not any(p.is_meta for p in made.parameters())


def test_a_tensor_of_two_blocks_is_refused(tmp_path: Path) -> None:
    made: Any = zoo()["Llama"]()[0]
    made.save_pretrained(tmp_path)
    made.model.layers[1].mlp = made.model.layers[0].mlp
    with pytest.raises(Refused, match="is a tensor of another block too"):
        BlockFiles(made, "model.layers", weight_files(tmp_path), torch.device("cpu"))
