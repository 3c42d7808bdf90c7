"""Checkpoints in the formats of other libraries, by their definitions: codes of a matrix, and what they mean.

Each function takes W (out, in) and gives the tensors that its library would store, by the ends of their names, with the
matrix that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from support.tiny import save_tiny, tiny_llama

Stored = tuple[dict[str, Tensor], Tensor]


@dataclass
class Foreign:
    """A way to quantize.

    Attributes:
        said: the `quantization_config`.
        store: the tensors of a matrix, and what they mean.
    """

    said: dict[str, Any]
    store: Callable[[Tensor], Stored]


def packed(codes: Tensor, bits: int) -> Tensor:
    """Codes (rows, n) from 0 in words of 32 bits (rows, n * bits / 32), lowest first."""
    words = torch.zeros(len(codes), codes.shape[1] * bits // 32, dtype=torch.int64)
    for place in range(codes.shape[1]):
        words[:, place * bits // 32] |= codes[:, place].long() << (place * bits % 32)
    return torch.where(words < 2**31, words, words - 2**32).int()


def tiles(w: Tensor, rows: int, columns: int, top: float) -> tuple[Tensor, Tensor]:
    """The scale of each tile, the last ones cut short, and the scale of each entry."""
    grid = torch.empty(-(-w.shape[0] // rows), -(-w.shape[1] // columns))
    whole = torch.empty_like(w)
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            here = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            grid[i, j] = whole[here] = w[here].abs().max() / top
    return grid, whole


def fp8_tiles(w: Tensor) -> Stored:
    grid, whole = tiles(w, 24, 40, 448)
    codes = (w / whole).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale_inv": grid}, codes.float() * whole


def fp8_one(w: Tensor) -> Stored:
    scale = w.abs().max() / 448
    codes = (w / scale).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale": scale, ".input_scale": torch.tensor(0.5)}, codes.float() * scale


def fp8_exponents(w: Tensor) -> Stored:
    grid, _ = tiles(w, 16, 32, 448)
    power = grid.log2().ceil()
    whole = power.exp2().repeat_interleave(16, 0).repeat_interleave(32, 1)[: w.shape[0], : w.shape[1]]
    codes = (w / whole).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale_inv": (power + 127).to(torch.uint8)}, codes.float() * whole


def fp8_rows(w: Tensor) -> Stored:
    grid, whole = tiles(w, 1, w.shape[1], 448)
    codes = (w / whole).to(torch.float8_e4m3fn)
    return {".weight": codes, ".weight_scale": grid, ".input_scale_ub": torch.tensor(12.0)}, codes.float() * whole


def integers(w: Tensor) -> Stored:
    grid, whole = tiles(w, 1, w.shape[1], 127)
    codes = (w / whole).round().to(torch.int8)
    return {".weight": codes, ".weight_scale": grid}, codes.float() * whole


def packed_groups(w: Tensor) -> Stored:
    """4 bits in groups of 16 inputs with zero points, which are packed along the outputs."""
    grid, whole = tiles(w, 1, 16, 7)
    zero = torch.arange(grid.numel()).view(grid.shape) % 5 - 2
    each = zero.repeat_interleave(16, 1)
    codes = (w / whole + each).round().clamp(-8, 7)
    shape = torch.tensor(w.shape)
    tensors = {".weight_packed": packed(codes + 8, 4), ".weight_scale": grid, ".weight_shape": shape}
    return {**tensors, ".weight_zero_point": packed((zero + 8).T, 4).T.contiguous()}, (codes - each) * whole


def gptq(bits: int, minus: int, shuffled: bool = False) -> Callable[[Tensor], Stored]:
    def store(w: Tensor) -> Stored:
        groups = torch.arange(w.shape[1]) // 16
        if shuffled:
            groups = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))]
        count = int(groups.max()) + 1
        scales = torch.stack([w[:, groups == k].abs().amax(1) / (2 ** (bits - 1)) for k in range(count)])
        zeros = torch.full_like(scales, 2 ** (bits - 1)) - torch.arange(w.shape[0]) % 2
        codes = (w / scales[groups].T + zeros[groups].T).round().clamp(0, 2**bits - 1)
        tensors = {".qweight": packed(codes, bits).T.contiguous(), ".qzeros": packed(zeros - minus, bits)}
        tensors |= {".scales": scales, ".g_idx": groups.int()}
        return tensors, (codes - zeros[groups].T) * scales[groups].T

    return store


def awq(w: Tensor) -> Stored:
    scales = torch.stack([each.abs().amax(1) / 8 for each in w.split(16, 1)])
    zeros = torch.full_like(scales, 8) - torch.arange(w.shape[0]) % 3
    codes = (w / scales.repeat_interleave(16, 0).T + zeros.repeat_interleave(16, 0).T).round().clamp(0, 15)
    order = torch.arange(w.shape[0]).view(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].flatten()
    tensors = {".qweight": packed(codes.T[:, order], 4), ".qzeros": packed(zeros[:, order], 4), ".scales": scales}
    return tensors, (codes - zeros.repeat_interleave(16, 0).T) * scales.repeat_interleave(16, 0).T


def eight_bits(w: Tensor) -> Stored:
    largest = w.abs().amax(1)
    codes = (127 * w / largest[:, None]).round().to(torch.int8)
    tensors = {".weight": codes, ".SCB": largest, ".weight_format": torch.tensor(0, dtype=torch.uint8)}
    return tensors, codes.float() * largest[:, None] / 127


def four_bits(nested: bool) -> Callable[[Tensor], Stored]:
    def store(w: Tensor) -> Stored:
        table = torch.linspace(-1, 1, 16)
        blocks = w.reshape(-1, 32)
        largest = blocks.abs().amax(1)
        said: dict[str, Any] = {"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": list(w.shape)}
        tensors = {".weight.quant_map": table, ".weight.absmax": largest}
        if nested:
            offset, outer = float(largest.mean()), torch.linspace(-1, 1, 256)
            tops = torch.stack([each.abs().max() for each in (largest - offset).split(16)])
            each = tops.repeat_interleave(16)[: len(largest)]
            places = (((largest - offset) / each)[:, None] - outer).abs().argmin(1)
            largest = outer[places] * each + offset
            said |= {"nested_blocksize": 16, "nested_dtype": "float32", "nested_offset": offset}
            tensors |= {".weight.absmax": places.to(torch.uint8), ".weight.nested_absmax": tops}
            tensors[".weight.nested_quant_map"] = outer
        codes = ((blocks / largest[:, None])[..., None] - table).abs().argmin(-1)
        flat = codes.flatten().to(torch.uint8)
        tensors[".weight"] = ((flat[::2] << 4) | flat[1::2])[:, None]
        state = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
        tensors[".weight.quant_state.bitsandbytes__nf4"] = state
        return tensors, (table[codes] * largest[:, None]).view(w.shape)

    return store


def scheme(**weights: Any) -> dict[str, Any]:
    kind = {"quant_method": "compressed-tensors", "format": "naive-quantized"}
    return {**kind, "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


def torchao(runs: int, zero: int) -> Callable[[Tensor], Stored]:
    """A byte an entry; `runs` scales a row."""

    def store(w: Tensor) -> Stored:
        grid, whole = tiles(w, 1, w.shape[1] // runs, 100)
        codes = (w / whole + zero).round().to(torch.int8)
        zeros = torch.full_like(grid, zero, dtype=torch.int8)
        tensors = {"._weight_qdata": codes, "._weight_scale": grid, "._weight_zero_point": zeros}
        return tensors, (codes.float() - zero) * whole

    return store


def torchao_fp8(w: Tensor) -> Stored:
    grid, whole = tiles(w, 1, w.shape[1], 448)
    codes = (w / whole).to(torch.float8_e4m3fn)
    return {"._weight_qdata": codes, "._weight_scale": grid}, codes.float() * whole


def of_torchao(kind: str, **data: Any) -> dict[str, Any]:
    return {"quant_method": "torchao", "quant_type": {"default": {"_type": kind, "_version": 2, "_data": data}}}


_GPTQ = {"quant_method": "gptq", "group_size": 16, "desc_act": False, "sym": False}
_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
_GROUPS = scheme(num_bits=4, type="int", strategy="group", group_size=16, symmetric=False)

FOREIGN: dict[str, Foreign] = {
    "fp8 in tiles": Foreign({**_FP8, "weight_block_size": [24, 40]}, fp8_tiles),
    "fp8 of one scale": Foreign({**_FP8, "activation_scheme": "static"}, fp8_one),
    "fp8 with exponents": Foreign({**_FP8, "weight_block_size": [16, 32], "scale_fmt": "ue8m0"}, fp8_exponents),
    "fbgemm": Foreign({"quant_method": "fbgemm_fp8", "activation_scale_ub": 12.0}, fp8_rows),
    "compressed-tensors fp8": Foreign(scheme(num_bits=8, type="float", strategy="channel"), fp8_rows),
    "compressed-tensors int8": Foreign(scheme(num_bits=8, type="int", strategy="channel"), integers),
    "compressed-tensors int4": Foreign(_GROUPS, packed_groups),
    "gptq 4": Foreign({**_GPTQ, "bits": 4}, gptq(4, 1)),
    "gptq 8": Foreign({**_GPTQ, "bits": 8}, gptq(8, 1)),
    "gptq 2": Foreign({**_GPTQ, "bits": 2}, gptq(2, 1)),
    "gptq in another order": Foreign({**_GPTQ, "bits": 4, "desc_act": True}, gptq(4, 1, shuffled=True)),
    "gptq v2": Foreign({**_GPTQ, "bits": 4, "checkpoint_format": "gptq_v2"}, gptq(4, 0)),
    "awq": Foreign({"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "zero_point": True}, awq),
    "bitsandbytes 8": Foreign({"quant_method": "bitsandbytes", "load_in_8bit": True}, eight_bits),
    "torchao int8": Foreign(of_torchao("Int8WeightOnlyConfig"), torchao(1, 0)),
    "torchao groups": Foreign(
        of_torchao("IntxWeightOnlyConfig", intx_packing_format={"_data": "UNPACKED_TO_INT8"}), torchao(4, 7)
    ),
    "torchao fp8": Foreign(of_torchao("Float8WeightOnlyConfig"), torchao_fp8),
    "bitsandbytes 4": Foreign({"quant_method": "bitsandbytes", "load_in_4bit": True}, four_bits(False)),
    "bitsandbytes 4 nested": Foreign({"quant_method": "bitsandbytes", "load_in_4bit": True}, four_bits(True)),
}


def save_foreign(directory: Path, kind: str) -> dict[str, Tensor]:
    """Writes a tiny model whose linear maps are quantized; returns its tensors as they are meant."""
    foreign, model = FOREIGN[kind], tiny_llama(tied=False)
    save_tiny(directory, model)
    tensors, meant = {}, {}
    for name, value in model.state_dict().items():
        if not name.endswith("proj.weight"):
            tensors[name] = meant[name] = value
            continue
        parts, meant[name] = foreign.store(value.float())
        base = name.removesuffix(".weight")
        tensors |= {base + end: part.contiguous() for end, part in parts.items()}
    write_tensors(directory, tensors)
    say(directory, foreign.said)
    return meant


def write_tensors(directory: Path, tensors: dict[str, Tensor]) -> None:
    save_file(
        {name: t.clone().contiguous() for name, t in tensors.items()}, directory / "model.safetensors", {"format": "pt"}
    )


def say(directory: Path, said: dict[str, Any] | None) -> None:
    """Writes a `quantization_config` into config.json, or takes it out."""
    config = json.loads((directory / "config.json").read_text())
    config.pop("quantization_config", None)
    (directory / "config.json").write_text(
        json.dumps(config if said is None else {**config, "quantization_config": said})
    )
