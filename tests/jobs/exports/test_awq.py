"""The layout of AutoAWQ: what its tensors mean, that they are read back, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from eckart.errors import Refused
from eckart.jobs.exports.awq import write
from eckart.models.transformers import load
from eckart.structures import Quantized
from jobs.exports.test_codes import CASES, in_numbers, logits, saved
from support.commands import nothing_left
from support.tiny import tiny_llama


def numbers(tensors: dict[str, Tensor], name: str, size: int) -> Tensor:
    """A matrix (out, in) by the definition of the layout: one code after the other."""
    columns = (0, 2, 4, 6, 1, 3, 5, 7)

    def entry(packed: Tensor, row: int, column: int) -> int:
        place = columns.index(column % 8)
        return int(packed[row, column // 8].item()) >> (4 * place) & 15

    codes, zeros, scales = (tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
    found = torch.empty(scales.shape[1], len(codes))
    for i in range(found.shape[1]):
        for o in range(len(found)):
            found[o, i] = scales[i // size, o] * (entry(codes, i, o) - entry(zeros, i // size, o))
    return found


@pytest.mark.parametrize("case", ["4, symmetric", "mixed", "positive"])
def test_what_is_read_back_is_the_model(case: str, tmp_path: Path) -> None:
    source, out = saved(tmp_path / "m", CASES[case][0]), tmp_path / "o"
    said = write(source, out)
    assert said.startswith("14 matrices of ")
    assert said.endswith("no number differs by more than 0")
    assert torch.equal(logits(load(str(out)).model), logits(in_numbers(source)))
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (config["bits"], config["group_size"], config["modules_to_not_convert"]) == (4, 16, ["lm_head"])
    name = "model.layers.1.self_attn.k_proj"
    own = in_numbers(source).get_submodule(name).weight
    torch.testing.assert_close(numbers(load_file(out / "model.safetensors"), name, 16), own.detach())


def test_what_the_layout_does_not_say_is_refused_by_name(tmp_path: Path) -> None:
    eight = saved(tmp_path / "eight", CASES["8, rows"][0])
    with pytest.raises(Refused, match="awq has codes of 4 bits, and this model needs 8: export --to gptq"):
        write(eight, tmp_path / "o")
    narrow = tiny_llama()
    narrow.config.intermediate_size = 36
    narrow = type(narrow)(narrow.config).eval()
    odd = saved(tmp_path / "odd", lambda w, _: Quantized.quantize(w, 4, 32), narrow, include=["*up_proj"])
    with pytest.raises(Refused, match=r"up_proj has 36 outputs, and awq packs 8 in a word"):
        write(odd, tmp_path / "o")
    assert nothing_left(tmp_path / "o")
