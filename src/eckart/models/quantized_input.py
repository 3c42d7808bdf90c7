"""Checkpoints that somebody quantized: turned into numbers where the format is known, refused by name where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from eckart.errors import Refused
from eckart.files.json import read_json
from eckart.models import dequantize
from eckart.models.checkpoint import read_tensors, weight_files

OWN = "eckart"
KEYS = ("quantization_config", "compression_config")
"""Where a configuration says how a checkpoint was quantized."""
BESIDE = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files in which older libraries say so, beside a config.json that does not."""
PLAIN = frozenset({"F64", "F32", "F16", "BF16", "I64", "I16", "BOOL", "C64"})
"""Types of tensors, as files call them, that hold numbers rather than codes."""
CODES = frozenset({"I8", "U8", "I32"})
"""Types that hold codes in quantized checkpoints, and indices and masks in others; float8 and narrower always do."""


@dataclass(frozen=True)
class Format:
    """How a matrix is stored.

    Attributes:
        codes: end of the name of its codes.
        types: of these, as files call them.
        needed: ends of the names of what else there must be.
        others: ends of the names of what there may be.
        name: end of the name that the model has for the matrix.
        read: gives the matrix.
    """

    codes: str
    types: tuple[str, ...]
    needed: tuple[str, ...]
    read: Callable[[dequantize.Parts, dequantize.Options], Tensor]
    others: tuple[str, ...] = ()
    name: str = ""


_FLOAT8 = ("F8_E4M3", "F8_E5M2")
_NF4 = (".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
_TILES = Format("", _FLOAT8, ("_scale_inv",), dequantize.fp8)
_SCALED = Format("", _FLOAT8, ("_scale",), dequantize.fp8)
_INTEGERS = ".qweight", ("I32",), (".qzeros", ".scales")

FORMATS: dict[str, tuple[Format, ...]] = {
    "fp8": (_TILES, _SCALED),
    "fbgemm_fp8": (_SCALED,),
    "compressed-tensors": (
        Format("_packed", ("I32",), ("_scale", "_shape"), dequantize.compressed_tensors, ("_zero_point", "_g_idx")),
        Format("", (*_FLOAT8, "I8"), ("_scale",), dequantize.compressed_tensors, ("_zero_point", "_g_idx")),
    ),
    "gptq": (Format(*_INTEGERS, dequantize.gptq, (".g_idx",), ".weight"),),
    "awq": (Format(*_INTEGERS, dequantize.awq, (), ".weight"),),
    "bitsandbytes": (
        Format(".weight", ("I8",), (".SCB",), dequantize.eight_bits_a_row, (".weight_format",), ".weight"),
        Format("", ("U8",), (".absmax", ".quant_map"), dequantize.four_bits_a_block, _NF4),
    ),
    "torchao": (
        Format("._weight_qdata", ("I8",), ("._weight_scale", "._weight_zero_point"), dequantize.torchao, (), ".weight"),
        Format("._weight_qdata", _FLOAT8, ("._weight_scale",), dequantize.torchao, (), ".weight"),
    ),
    "mxfp4": (Format("_blocks", ("U8",), ("_scales",), dequantize.mxfp4),),
}
"""How the matrices are stored that each `quant_method` writes."""
ACTIVATIONS = (
    *(f"{of}_scale" for of in ("activation", "input", "output", "k", "v")),
    "input_scale_ub",
    "input_zero_point",
)
"""Ends of the names of scales of activations, which a dense model does not round."""


def quantization_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a config.json says of how its checkpoint was quantized by others; None where it says nothing of it."""
    for key, value in config.items():
        if key in KEYS and isinstance(value, Mapping) and value:
            return None if value.get("quant_method") == OWN else value
    inner = [quantization_of(value) for value in config.values() if isinstance(value, Mapping)]
    return next((found for found in inner if found is not None), None)


def method_of(said: Mapping[str, Any]) -> str:
    """The name of a way to quantize."""
    flags = any(said.get(flag) for flag in ("load_in_8bit", "load_in_4bit"))
    return str(said.get("quant_method") or ("bitsandbytes" if flags else "an unnamed method"))


def in_codes(source: str) -> bool:
    """Whether the weights of a model, as it is named to a job, are stored as codes: in a GGUF file, or by others."""
    return source == "smollm2" or source.endswith(".gguf") or was_quantized(Path(source))


def was_quantized(path: Path) -> bool:
    """Whether a directory holds what another library quantized."""
    return (path / "config.json").is_file() and quantization_of(read_json(path / "config.json")) is not None


def check_quantized(path: Path) -> None:
    """Raises Refused where a directory holds codes in the place of numbers, and it is not known how to read them."""
    config = read_json(path / "config.json")
    said = quantization_of(config)
    if said is not None:
        check_method(said, str(path))
        _groups(path, said)
        return
    if any(isinstance(config.get(key), Mapping) and config[key] for key in KEYS):
        return  # eckart's own
    for file, method in BESIDE.items():
        if (path / file).is_file():
            raise Refused(_advice(str(path), method, f"{file} says so, and config.json has no quantization_config"))
    for name, kind in _types(path).items():
        matrix = name.endswith((".weight", "_proj")) and kind in CODES
        if matrix or kind not in PLAIN | CODES | {"U16", "U32", "U64"}:
            raise Refused(
                f"{path} holds {name} in {kind}, and its config.json does not say how that was quantized: give a "
                "checkpoint with its scales and its quantization_config, or in bfloat16"
            )


def check_method(said: Mapping[str, Any], source: str) -> None:
    """Raises Refused for a way to quantize that is not read, with what to do."""
    method = method_of(said)
    if method not in FORMATS:
        raise Refused(_advice(source, method, f"what is read is {', '.join(FORMATS)}"))


def dense_tensors(path: Path, said: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors of a quantized checkpoint, matrices as numbers.

    Args:
        path: a directory that `check_quantized` lets pass.
        said: `quantization_of` its configuration.
        dtype: of the matrices.

    Raises:
        Refused: the parts of a matrix do not fit each other, or options that are not read.
    """
    groups, rest = _groups(path, said)
    stored = read_tensors(path)
    found = {name: stored[name] for name in rest}
    for target, (form, names) in groups.items():
        parts = {end: stored[name] for end, name in names.items()}
        try:
            found[target] = form.read(parts, said).to(dtype).contiguous()
        except Refused as error:
            raise Refused(_advice(str(path), method_of(said), f"{target}: {error}")) from error
        except (KeyError, ValueError, TypeError, RuntimeError, StopIteration) as error:
            raise Refused(f"{path}: the parts of {target} do not fit each other ({error}); fetch it again") from error
    return found


def _groups(path: Path, said: Mapping[str, Any]) -> tuple[dict[str, tuple[Format, dict[str, str]]], list[str]]:
    """The parts of each matrix by the ends of their names, and what is stored as it is."""
    types, method = _types(path), method_of(said)
    groups: dict[str, tuple[Format, dict[str, str]]] = {}
    used: set[str] = set()
    for form in FORMATS[method]:
        for target, names in _stored(types, form):
            groups[target] = form, names
            used |= set(names.values())
    rest = [name for name in types if name not in used and not name.endswith(ACTIVATIONS)]
    parts = [(form.codes, *form.needed, *form.others) for form in FORMATS[method]]
    ends = {end for each in parts for end in each} - {"", *(form.name for form in FORMATS[method])}
    for name in rest:
        end = next((end for end in ends if name.endswith(end)), "")
        # Models have parameters such as logit_scale of their own.
        part = end.startswith(".") or (end and (name.endswith(f"weight{end}") or name.removesuffix(end) in types))
        if types[name] not in PLAIN or part:
            raise Refused(
                f"{path} holds {name} in {types[name]} without what belongs to it in {method}, so that it is not known "
                "what it means: fetch the whole checkpoint again"
            )
    if not groups:
        raise Refused(
            f"config.json of {path} says that it was quantized by {method}, and no tensor of it was: take "
            f"{KEYS[0]} out of config.json if the weights are plain numbers"
        )
    return groups, rest


def _stored(types: Mapping[str, str], form: Format) -> Iterator[tuple[str, dict[str, str]]]:
    """The matrices that are whole in a format: their names, and those of their parts by how they end."""
    for name, kind in types.items():
        base = name.removesuffix(form.codes)
        if kind in form.types and name.endswith(form.codes) and all(base + end in types for end in form.needed):
            ends = (form.codes, *form.needed, *form.others)
            yield base + form.name, {end: base + end for end in ends if base + end in types}


def _types(path: Path) -> dict[str, str]:
    """The type of each tensor of a directory, as its files call it."""
    found: dict[str, str] = {}
    for file in weight_files(path):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118
    return found


def _advice(source: str, method: str, reason: str) -> str:
    return (
        f"{source} is quantized by {method}, which is not read as it is stored here ({reason}): make it dense once "
        "with its own library: load it, model = model.dequantize(), model.save_pretrained(NEW_DIR)"
    )
