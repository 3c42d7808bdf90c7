"""Numbers from the codes of other people's quantized checkpoints: one function a format, of the tensors it stores.

Each takes the parts of one matrix by the ends of their names and the `quantization_config`, and gives the matrix in
float32, as the model has it. Orders of bits are those that the formats' own libraries write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused

Parts = Mapping[str, Tensor]
Options = Mapping[str, Any]

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""What the codes of E2M1 mean."""
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word the columns are that it holds eight of."""

TORCHAO = (
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "IntxWeightOnlyConfig",
    "Int8DynamicActivationIntxWeightConfig",
    "Float8WeightOnlyConfig",
    "Float8DynamicActivationFloat8WeightConfig",
)
"""Configurations of torchao whose tensors are a code an entry."""
UNPACKED = "UNPACKED_TO_INT8"


def fp8(parts: Parts, options: Options) -> Tensor:
    """Float8 codes times scales: one a tile of `weight_block_size`, one a row, or one in all."""
    tile = options.get("weight_block_size")
    scale = parts["_scale_inv"] if "_scale_inv" in parts else parts["_scale"]
    return _floats(parts[""]) * _spread(scale, parts[""].shape, tuple(tile) if tile else None)


def compressed_tensors(parts: Parts, options: Options) -> Tensor:
    """Float or integer codes, as they are or packed, less a zero point, times scales of rows, groups, tiles or all."""
    weights = _scheme(options)
    if "_packed" in parts:
        bits = int(weights["num_bits"])
        if bits not in (2, 4, 8):
            raise Refused(f"num_bits={bits} is packed in several ways; 2, 4 and 8 are read")
        shape = tuple(parts["_shape"].tolist())
        codes = _unpacked(parts["_packed"], bits)[:, : shape[-1]] - 2 ** (bits - 1)
        zero = parts.get("_zero_point")
        if zero is not None:
            zero = _unpacked(zero.T, bits).T[: shape[0]] - 2 ** (bits - 1)
    else:
        codes, zero = _floats(parts[""]), parts.get("_zero_point")
        zero = None if zero is None else zero.float()
    tile: tuple[int, int] | None = None
    if weights.get("strategy") == "block":
        tile = tuple(weights["block_structure"])
    elif weights.get("strategy") in ("group", "tensor_group"):
        tile = (1, int(weights["group_size"]))
    scale, order = parts["_scale"], parts.get("_g_idx")
    if (zero is None and weights.get("symmetric") is False) or (order is None and weights.get("actorder") == "group"):
        raise Refused("the scheme has zero points or an order of inputs, and no tensor holds them")
    if order is not None and tile is not None and bool((order >= 0).all()):
        scale, zero, tile = scale[:, order.long()], None if zero is None else zero[:, order.long()], None
    centred = codes if zero is None else codes - _spread(zero, codes.shape, tile)
    found: Tensor = centred * _spread(scale, codes.shape, tile)
    return found


def gptq(parts: Parts, options: Options) -> Tensor:
    """Integers of 2, 4 or 8 bits packed along the inputs, scales and zero points of groups of them."""
    bits = int(options.get("bits", 0))
    if bits not in (2, 4, 8) or options.get("dynamic"):
        raise Refused(f"bits={bits}, dynamic={options.get('dynamic')!r} is not read; one of 2, 4, 8 bits for all is")
    version = str(options.get("checkpoint_format") or "gptq")
    if version not in ("gptq", "gptq_v2"):
        raise Refused(f"checkpoint_format={version!r} is not read; 'gptq' and 'gptq_v2' are")
    codes = _unpacked(parts[".qweight"].T, bits)
    scales = parts[".scales"].float().T
    # The first version of the format stores zero points less one.
    zeros = _unpacked(parts[".qzeros"], bits).T + (version == "gptq")
    if options.get("desc_act") and ".g_idx" not in parts:
        raise Refused("desc_act=true, and no .g_idx says to which group an input belongs")
    inputs, size = codes.shape[1], int(options.get("group_size", -1))
    groups = parts[".g_idx"].long() if ".g_idx" in parts else torch.arange(inputs) // (inputs if size < 1 else size)
    if zeros.shape != scales.shape or len(groups) != inputs or int(groups.max()) >= scales.shape[1]:
        raise Refused(f"scales of shape {tuple(scales.T.shape)} do not fit codes of shape {tuple(codes.shape)}")
    found: Tensor = (codes - zeros[:, groups]) * scales[:, groups]
    return found


def awq(parts: Parts, options: Options) -> Tensor:
    """Integers of 4 bits packed along the outputs, scales and zero points of groups of inputs."""
    version, bits = str(options.get("version", "gemm")).lower(), int(options.get("bits", options.get("w_bit", 0)))
    if version != "gemm" or bits != 4:
        raise Refused(f"version={version!r} of {bits} bits is not read; 'gemm' of 4 bits is")
    codes, zeros = (_unpacked(parts[name], 4) for name in (".qweight", ".qzeros"))
    codes, zeros = (each.view(len(each), -1, 8)[..., AWQ_ORDER].flatten(1) for each in (codes, zeros))
    scales = parts[".scales"].float()
    size = int(options.get("group_size", options.get("q_group_size", -1)))
    tile = (len(codes) if size < 1 else size, 1)
    return ((codes - _spread(zeros, codes.shape, tile)) * _spread(scales, codes.shape, tile)).T


def eight_bits_a_row(parts: Parts, options: Options) -> Tensor:
    """LLM.int8(): integers of which 127 stands for the largest entry of a row."""
    found: Tensor = parts[".weight"].float() * parts[".SCB"].float()[:, None] / 127
    return found


def four_bits_a_block(parts: Parts, options: Options) -> Tensor:
    """NF4 and FP4 of bitsandbytes: places in a table of 16 numbers, times the largest entry of a block."""
    state = next(value for name, value in parts.items() if "bitsandbytes__" in name)
    said = json.loads(bytes(state.tolist()))
    largest = parts[".absmax"]
    if "nested_blocksize" in said or not largest.is_floating_point():
        table, outer = parts[".nested_quant_map"].float(), parts[".nested_absmax"].float()
        each = outer.repeat_interleave(int(said["nested_blocksize"]))[: largest.numel()]
        largest = table[largest.long()] * each + float(said["nested_offset"])
    packed = parts[""].flatten()
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten().long()
    shape = tuple(said["shape"])
    count = torch.Size(shape).numel()
    each = largest.float().repeat_interleave(int(said["blocksize"]))[:count]
    return (parts[".quant_map"].float()[codes[:count]] * each).view(shape)


def torchao(parts: Parts, options: Options) -> Tensor:
    """Integers or float8 that torchao does not pack, less a zero point, times scales of rows or runs of inputs."""
    schemes = options.get("quant_type") or {}
    said = schemes.get("default") if isinstance(schemes, Mapping) and list(schemes) == ["default"] else None
    kind = said.get("_type") if isinstance(said, Mapping) else schemes
    packing = (said or {}).get("_data", {}).get("intx_packing_format", {}).get("_data", UNPACKED)
    if kind not in TORCHAO or packing != UNPACKED:
        raise Refused(f"quant_type {kind!r}, packing {packing!r} is not read; {', '.join(TORCHAO)}, {UNPACKED} are")
    codes, scale = parts["._weight_qdata"], parts["._weight_scale"]
    if scale.ndim != codes.ndim or any(n % s for n, s in zip(codes.shape, scale.shape, strict=True)):
        raise Refused(f"scales of shape {tuple(scale.shape)} do not fit codes of shape {tuple(codes.shape)}")
    tile = tuple(n // s for n, s in zip(codes.shape, scale.shape, strict=True))
    zero = parts.get("._weight_zero_point")
    centred = _floats(codes) if zero is None else _floats(codes) - _spread(zero, codes.shape, tile)
    return centred * _spread(scale, codes.shape, tile)


def mxfp4(parts: Parts, options: Options) -> Tensor:
    """FP4 in blocks of 32 inputs with a power of two each: (experts, out, blocks, 16) to (experts, in, out)."""
    packed = parts["_blocks"]
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long()
    values = torch.tensor(FP4)[codes] * _floats(parts["_scales"], exponents=True)[..., None]
    return values.flatten(-2).mT


def _scheme(options: Options) -> Mapping[str, Any]:
    """How compressed-tensors stored the weights; Refused where not all in one way that is read."""
    sparse = (options.get("sparsity_config") or {}).get("format", "dense")
    groups = list((options.get("config_groups") or {}).values())
    found = {json.dumps(group.get("weights"), sort_keys=True): group.get("weights") for group in groups}
    if len(found) != 1 or not next(iter(found.values())) or sparse != "dense" or options.get("transform_config"):
        raise Refused(f"{len(found)} schemes of weights, sparsity {sparse!r} or transforms; one plain scheme is read")
    weights: Mapping[str, Any] = next(iter(found.values()))
    if weights.get("type") == "float" and weights.get("num_bits") != 8:
        raise Refused(f"floats of {weights.get('num_bits')} bits are not read; those of 8 bits are")
    return weights


def _unpacked(words: Tensor, bits: int) -> Tensor:
    """The numbers in words of 32 bits, lowest bits first: (rows, words) to (rows, words * 32 / bits), from 0."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    found: Tensor = (words[..., None] >> shifts) & (2**bits - 1)
    return found.flatten(1).float()


def _floats(codes: Tensor, exponents: bool = False) -> Tensor:
    """Codes as numbers; bytes that are exponents as powers of two."""
    return (codes.float() - 127).exp2() if exponents and codes.dtype == torch.uint8 else codes.float()


def _spread(scale: Tensor, shape: torch.Size, tile: tuple[int, ...] | None) -> Tensor:
    """Scales of the tiles of a matrix, one for each entry; the last tiles may be cut short.

    Raises:
        Refused: there are not as many scales as tiles.
    """
    scale = _floats(scale, exponents=True)
    if scale.ndim == 1 and scale.numel() > 1 and len(shape) == 2:
        scale = scale[:, None]
    if scale.numel() == 1 and (tile is None or all(n <= t for n, t in zip(shape[-2:], tile, strict=True))):
        return scale.reshape(())
    fits = scale.ndim == len(shape) and scale.shape[:-2] == shape[:-2]
    for place in (-2, -1) if fits else ():
        step = (shape[place] if scale.shape[place] == 1 else 1) if tile is None else tile[place]
        fits = fits and scale.shape[place] == ceil(shape[place] / step)
        scale = scale.repeat_interleave(step, place).narrow(place, 0, shape[place]) if fits else scale
    if not fits:
        tiles = tile or "rows"
        raise Refused(f"scales of shape {tuple(scale.shape)} do not fit codes of {tuple(shape)} in tiles of {tiles}")
    return scale
