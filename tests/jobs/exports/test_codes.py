"""Integers in the formats of others: what is written, that it is read as it was meant, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from eckart.cli.app import main
from eckart.errors import Refused
from eckart.jobs.exports._ordinary import made_dense
from eckart.jobs.exports.contract import writer
from eckart.models.places import replace
from eckart.models.rotation import rotate
from eckart.models.sites import find_sites
from eckart.models.transformers import load
from eckart.structures import Chain, Dense, Quantized, StructuredMatrix, Sum
from support.codes_of_others import packed
from support.commands import nothing_left
from support.tiny import VOCABULARY, save_tiny, tiny_gpt2, tiny_llama, tiny_mixtral

FORMS = ("compressed-tensors", "gptq")
Fit = Callable[[Tensor, int], StructuredMatrix]


def saved(directory: Path, fit: Fit, model: Any = None, dtype: torch.dtype = torch.float32, **which: Any) -> str:
    """A directory of a model whose matrices, counted, became structures."""
    model = (tiny_llama() if model is None else model).to(dtype)
    for place, site in enumerate(find_sites(model, **which)):
        replace(model, site, fit(site.weight, place))
    return str(save_tiny(directory, model))


def logits(model: Any) -> Tensor:
    ids = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found: Tensor = model(ids).logits
    return found


def in_numbers(source: str) -> Any:
    """A model with ordinary matrices."""
    model = load(source).model
    made_dense(model)
    return model


def mixed(w: Tensor, place: int) -> Quantized:
    """Codes of 2 to 4 bits, groups of 32 and 16 inputs, grids with and without zero-points."""
    return Quantized.quantize(w, 2 + place % 3, 32 >> place % 2, symmetric=place % 4 == 0)


CASES: dict[str, tuple[Fit, dict[str, Any], str]] = {
    "4, symmetric": (
        lambda w, _: Quantized.quantize(w, 4, 16, symmetric=True),
        {"bits": 4, "group": 16, "symmetric": True},
        "14 matrices of 4 bits, groups of 16, symmetric",
    ),
    "8, rows": (
        lambda w, _: Quantized.quantize(w, 8, 64),
        {"bits": 8, "group": None, "symmetric": False},
        "14 matrices of 8 bits, a scale a row, with zero-points",
    ),
    "mixed": (
        mixed,
        {"bits": 4, "group": 16, "symmetric": False},
        "14 matrices of 2 and 3 and 4 bits, stored in 4, groups of 16 (the scales of 16 and 32 repeated), with",
    ),
    "positive": (  # of which all zero-points are 0
        lambda w, _: Quantized.quantize(w.abs(), 4, 16),
        {"bits": 4, "group": 16, "symmetric": False},
        "14 matrices of 4 bits, groups of 16, with zero-points",
    ),
}


def scheme(config: dict[str, Any]) -> dict[str, Any]:
    said = config["quantization_config"]
    if said["quant_method"] == "gptq":
        group = None if said["group_size"] == -1 else said["group_size"]
        return {"bits": said["bits"], "group": group, "symmetric": said["sym"]}
    found = said["config_groups"]["group_0"]["weights"]
    return {"bits": found["num_bits"], "group": found["group_size"], "symmetric": found["symmetric"]}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_back_is_the_model(form: str, case: str, tmp_path: Path) -> None:
    fit, wanted, note = CASES[case]
    dtype = torch.bfloat16 if case == "mixed" else torch.float32
    source, out = saved(tmp_path / "m", fit, dtype=dtype), tmp_path / "o"
    said = writer(form)(source, out)
    assert said.startswith(note)
    assert said.endswith("1 linear maps stay as they are; read back, no number differs by more than 0")
    assert scheme(json.loads((out / "config.json").read_text())) == wanted
    dense = in_numbers(source)
    assert torch.equal(logits(load(str(out)).model), logits(dense))


@pytest.mark.parametrize("case", CASES)
def test_plain_transformers_loads_it_by_the_package(case: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    source = saved(tmp_path / "m", CASES[case][0])
    writer("compressed-tensors")(source, tmp_path / "o")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "o")
    torch.testing.assert_close(logits(found), logits(in_numbers(source)))


def test_the_bytes_are_those_of_the_definitions(tmp_path: Path) -> None:
    def fit(w: Tensor, place: int) -> Quantized:
        return Quantized.quantize(w, 4, 16)

    source, name = saved(tmp_path / "m", fit), "model.layers.1.mlp.down_proj"
    matrix = load(source).model.get_submodule(name).structure
    codes, zeros, scales = matrix.unpacked(), matrix.zeros, matrix.scales
    for form in FORMS:
        writer(form)(source, tmp_path / form)
    found = load_file(tmp_path / FORMS[0] / "model.safetensors")
    assert torch.equal(found[f"{name}.weight_packed"], packed(codes, 4))
    assert torch.equal(found[f"{name}.weight_zero_point"], packed(zeros.T, 4).T)
    assert torch.equal(found[f"{name}.weight_scale"], scales)
    found = load_file(tmp_path / FORMS[1] / "model.safetensors")
    said = json.loads((tmp_path / FORMS[1] / "config.json").read_text())["quantization_config"]
    less = said["checkpoint_format"] == "gptq"
    assert torch.equal(found[f"{name}.qweight"], packed(codes, 4).T)
    assert torch.equal(found[f"{name}.qzeros"], packed(zeros.T - int(less), 4))
    assert torch.equal(found[f"{name}.scales"], scales.T)
    assert found[f"{name}.g_idx"].tolist() == [j // 16 for j in range(64)]


def test_zero_points_of_0_ask_for_the_second_version(tmp_path: Path) -> None:
    for case, version in (("4, symmetric", "gptq"), ("positive", "gptq_v2")):
        writer("gptq")(saved(tmp_path / version / "m", CASES[case][0]), tmp_path / version / "o")
        said = json.loads((tmp_path / version / "o" / "config.json").read_text())["quantization_config"]
        assert said["checkpoint_format"] == version


@pytest.mark.parametrize("form", [*FORMS, "awq"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_that_was_rotated_first_is_written(form: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_llama(tied)
    rotate(model)
    source = saved(tmp_path / "m", CODED, model)
    said = writer(form)(source, tmp_path / "o")
    assert (", 1 compressed ones as ordinary matrices (Chain); 1 linear maps" in said) == tied
    torch.testing.assert_close(logits(load(str(tmp_path / "o")).model), logits(load(source).model))


def test_dense_matrices_stay_dense(tmp_path: Path) -> None:
    source = saved(tmp_path / "m", CASES["4, symmetric"][0], include=["*.mlp.*"])
    for form in FORMS:
        assert "6 matrices of 4 bits" in writer(form)(source, tmp_path / form)
        assert torch.equal(logits(load(str(tmp_path / form)).model), logits(in_numbers(source)))
    gptq, ct = (json.loads((tmp_path / f / "config.json").read_text())["quantization_config"] for f in FORMS[::-1])
    assert gptq["modules_in_block_to_quantize"] == [["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]]
    assert len(ct["ignore"]) == 9
    assert "lm_head" in ct["ignore"]


def low_rank(w: Tensor, place: int) -> StructuredMatrix:
    base = Quantized.quantize(w, 4, 16)
    return base if place < 2 else Sum(base, Chain(Dense(w[:, :2]), Dense(w[:2])))


CODED = CASES["4, symmetric"][0]
REFUSED: dict[str, tuple[Fit, Callable[[], Any], dict[str, Any], str]] = {
    "a sum": (low_rank, tiny_llama, {}, r"layers.0.self_attn.v_proj .* is a Sum, .*--method gptq --bits 4 --group 128"),
    "a codebook": (
        lambda w, _: Quantized.quantize(w, 4, 16, codebook=torch.linspace(-1, 1, 16)),
        tiny_llama,
        {},
        "q_proj .* has a codebook",
    ),
    "an embedding": (
        CODED,
        lambda: tiny_llama(tied=False),
        {"embeddings": True},
        "embed_tokens .* is a coded embedding.* --exclude 'model.embed_tokens'",
    ),
    "a tied head": (
        CODED,
        tiny_llama,
        {"embeddings": True},
        "embed_tokens|lm_head",
    ),
    "transposed": (CODED, tiny_gpt2, {}, "c_attn .* its layer stores transposed, .*: export --to plain or onnx"),
    "experts": (lambda w, _: Quantized.quantize(w, 4, 8), tiny_mixtral, {"include": ["*q_proj"]}, "mixture of experts"),
    "no integers": (lambda w, _: Dense(w), tiny_llama, {}, "has no matrix of integers"),
    "small groups": (lambda w, _: Quantized.quantize(w, 4, 12), tiny_llama, {}, "32 inputs in groups of 12: .* of 4"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_format_cannot_say_is_refused_by_name(case: str, tmp_path: Path) -> None:
    fit, model, which, message = REFUSED[case]
    source = saved(tmp_path / "m", fit, model(), **which)
    for form in FORMS:
        with pytest.raises(Refused, match=message):
            writer(form)(source, tmp_path / "o")
    assert nothing_left(tmp_path / "o")


def test_gptq_refuses_what_its_configuration_and_words_do_not_say(tmp_path: Path) -> None:
    fit = CASES["4, symmetric"][0]
    source = saved(tmp_path / "m", fit, include=["model.layers.0.mlp.*"])
    with pytest.raises(Refused, match=r"layers.1.mlp.gate_proj is dense and the same .* --to compressed-tensors"):
        writer("gptq")(source, tmp_path / "o")
    writer("compressed-tensors")(source, tmp_path / "o")


def test_the_command_line_says_what_was_written(tmp_path: Path, capsys: Any) -> None:
    source = saved(tmp_path / "m", CASES["4, symmetric"][0])
    assert main(["export", source, "--to", "gptq", "--out", str(tmp_path / "o")]) == 0
    assert "14 matrices of 4 bits" in capsys.readouterr().err
