"""Checkpoints that others quantized: the numbers they mean, or a refusal that says what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from eckart.cli.app import main
from eckart.errors import Refused
from eckart.models import dequantize
from eckart.models.quantized_input import FORMATS
from eckart.models.transformers import check_directory, load_model
from support.codes_of_others import FOREIGN, save_foreign, say, write_tensors
from support.tiny import save_tiny, tiny_gpt2, tiny_gpt_oss, tiny_llama


@pytest.mark.parametrize("kind", FOREIGN)
def test_codes_are_read_as_the_numbers_they_mean(kind: str, tmp_path: Path) -> None:
    meant = save_foreign(tmp_path, kind)
    model, _ = load_model(str(tmp_path))
    dense = tiny_llama(tied=False).state_dict()
    found = model.state_dict()
    assert found.keys() == meant.keys()
    for name, expected in meant.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
        # No quantizer moves a matrix by more than half of it: scales, signs and orders are right.
        assert (found[name] - dense[name]).norm() <= 0.5 * dense[name].norm(), name
    assert not hasattr(model.config, "quantization_config")
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == 0


def test_every_format_is_tried() -> None:
    assert {foreign.said["quant_method"] for foreign in FOREIGN.values()} == FORMATS.keys() - {"mxfp4"}


def test_experts_of_four_bits(tmp_path: Path) -> None:
    """As gpt-oss comes; the reference is the reader of transformers."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    model = tiny_gpt_oss()
    save_tiny(tmp_path, model)
    tensors, expected = {}, {}
    generator = torch.Generator().manual_seed(0)
    for name, value in load_file(tmp_path / "model.safetensors").items():
        if not name.endswith("_proj") or ".experts." not in name:
            tensors[name] = expected[name] = value
            continue
        experts, inputs, outputs = value.shape
        shape = (experts, outputs, -(-inputs // 32))
        blocks = torch.randint(256, (*shape, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(120, 126, shape, generator=generator, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        expected[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        read = dequantize.mxfp4({"_blocks": blocks, "_scales": scales}, {})
        assert torch.equal(read, expected[name])
    write_tensors(tmp_path, tensors)
    say(tmp_path, {"quant_method": "mxfp4"})
    if any(value.shape != model.state_dict()[name].shape for name, value in expected.items()):
        with pytest.raises(Refused, match="weights of other shapes"):
            load_model(str(tmp_path))
        return
    found = load_model(str(tmp_path))[0].state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


OTHERS = [
    *("hqq", "quanto", "aqlm", "vptq", "spqr", "eetq", "higgs", "auto-round", "bitnet", "quark", "modelopt"),
    *("nvfp4", "fp_quant", "sinq", "gguf", "nobody-knows"),
]


@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_are_refused_by_name(method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    said = {"quant_method": method}
    for config in (said, {"text_config": {"quantization_config": said}}):
        say(tmp_path, said if config is said else None)
        if config is not said:
            file = tmp_path / "config.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
        with pytest.raises(Refused, match=rf"is quantized by {method}, .* model = model.dequantize\(\)"):
            check_directory(tmp_path)


@pytest.mark.parametrize("command", ["diagnose", "compress"])
def test_the_command_line_says_so(command: str, tmp_path: Path, capsys: Any) -> None:
    save_tiny(tmp_path / "m")
    say(tmp_path / "m", {"quant_method": "hqq"})
    assert main([command, str(tmp_path / "m"), *(["--out", str(tmp_path / "o")] if command == "compress" else [])]) == 2
    assert "is quantized by hqq" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("method", FORMATS)
def test_a_plain_checkpoint_that_says_it_was_quantized_is_refused(method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    say(tmp_path, {"quant_method": method})
    with pytest.raises(Refused, match=f"quantized by {method}, and no tensor of it was"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32])
def test_codes_without_a_word_about_them_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_llama(tied=False)
    save_tiny(tmp_path, model)
    tensors = model.state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = (100 * tensors[name]).to(dtype)
    write_tensors(tmp_path, tensors)
    with pytest.raises(Refused, match=f"holds {name} in .*does not say how that was quantized"):
        check_directory(tmp_path)


@pytest.mark.parametrize("kind", FOREIGN)
def test_codes_without_their_configuration_or_a_part_are_refused(kind: str, tmp_path: Path) -> None:
    save_foreign(tmp_path, kind)
    said = FOREIGN[kind].said
    say(tmp_path, None)
    with pytest.raises(Refused, match=r"does not say how that was quantized|has no place for|lacks weights"):
        load_model(str(tmp_path))
    say(tmp_path, said)
    tensors = load_file(tmp_path / "model.safetensors")
    base = "model.layers.0.mlp.gate_proj."
    optional = {"input_scale", "input_scale_ub", "weight_format"} | ({"g_idx"} if not said.get("desc_act") else set())
    for part in [name for name in tensors if name.startswith(base)]:
        if part.removeprefix(base) in optional:
            continue
        write_tensors(tmp_path, {name: t for name, t in tensors.items() if name != part})
        with pytest.raises(Refused):
            load_model(str(tmp_path))


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("fp8 in tiles", {"weight_block_size": [32, 32]}, "do not fit codes of"),
    ("fp8 in tiles", {"weight_block_size": None}, "do not fit codes of"),
    ("gptq 4", {"bits": 3}, "bits=3"),
    ("gptq 4", {"bits": 8}, "gptq"),
    ("gptq 4", {"checkpoint_format": "marlin"}, "checkpoint_format='marlin'"),
    ("gptq 4", {"dynamic": {"+:.*": {"bits": 8}}}, "dynamic="),
    ("awq", {"version": "gemv"}, "version='gemv'"),
    ("awq", {"group_size": 8}, "do not fit codes of"),
    (
        "torchao int8",
        {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
        "quant_type 'Int4WeightOnlyConfig'",
    ),
    ("torchao int8", {"quant_type": {"model.layers.0": {"_type": "Int8WeightOnlyConfig"}}}, "is not read"),
    ("compressed-tensors int4", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity 'sparse-24-bitmask'"),
    ("compressed-tensors int4", {"config_groups": {}}, "0 schemes"),
]


@pytest.mark.parametrize(("kind", "changed", "message"), BROKEN, ids=str)
def test_options_that_do_not_fit_are_named(kind: str, changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_foreign(tmp_path, kind)
    say(tmp_path, {**FOREIGN[kind].said, **changed})
    with pytest.raises(Refused, match=message):
        load_model(str(tmp_path))


def test_matrices_that_may_be_transposed_are_refused(tmp_path: Path) -> None:
    model = tiny_gpt2()
    save_tiny(tmp_path, model)
    tensors: dict[str, Tensor] = dict(model.state_dict())
    tensors.pop("lm_head.weight")
    name = "transformer.h.0.attn.c_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors[f"{name}_scale"] = torch.tensor(1.0)
    write_tensors(tmp_path, tensors)
    say(tmp_path, {"quant_method": "fp8", "activation_scheme": "dynamic"})
    with pytest.raises(Refused, match="store transposed and some do not"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(("file", "method"), [("hf_quant_config.json", "modelopt"), ("quantize_config.json", "gptq")])
def test_files_beside_the_configuration_count(file: str, method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / file).write_text(json.dumps({"bits": 4}))
    with pytest.raises(Refused, match=f"is quantized by {method}.*{file} says so"):
        check_directory(tmp_path)


def test_a_quantized_model_goes_through_the_command_line(tmp_path: Path) -> None:
    save_foreign(tmp_path / "m", "compressed-tensors int4")
    out = tmp_path / "o"
    options = ["--method", "rtn", "--keep", "0.7", "--of", "bytes", "--eval", "none", "--no-speed"]
    assert main(["compress", str(tmp_path / "m"), "--out", str(out), *options]) == 0
    assert "were quantized before" in str(json.loads((out / "report.json").read_text())["warnings"])
    assert json.loads((out / "config.json").read_text())["quantization_config"]["quant_method"] == "eckart"
    load_model(str(out))


def test_export_writes_the_numbers_that_codes_of_others_mean(tmp_path: Path) -> None:
    meant = save_foreign(tmp_path / "m", next(iter(FOREIGN)))
    assert main(["export", str(tmp_path / "m"), "--to", "dense", "--out", str(tmp_path / "o")]) == 0
    assert "quantization_config" not in json.loads((tmp_path / "o" / "config.json").read_text())
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "o").state_dict()
    for name, expected in meant.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
