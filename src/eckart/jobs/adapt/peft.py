"""Adapters in the layout of Hugging Face PEFT: reading any LoRA, writing any adapter as one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.adapters.contract import ADAPTERS
from eckart.errors import Refused
from eckart.files.directories import new_directory
from eckart.files.json import read_json, write_json
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import Parts, parts_of, put_in, read_adapter
from eckart.layouts.patches import Pair
from eckart.models.layers import is_conv1d
from eckart.structures import Chain, Dense, Scaled, StructuredMatrix, low_rank

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTORS = ("lora_B", "lora_A")


def load_peft(model: nn.Module, source: Path, *, name: str = "default") -> Adapter:
    """Puts a LoRA that PEFT wrote beside the linear maps of a model, in place; see `eckart.load_adapter`.

    Raises:
        Refused: another type than LoRA, parts that a plain LoRA does not have, damaged files, or a model that does
            not fit.
    """
    config = read_json(source / CONFIG)
    if config.get("peft_type") != "LORA":
        raise Refused(f"{source} is an adapter of type {config.get('peft_type')!r}; only LORA can be read")
    for word in ("use_dora", "bias", "modules_to_save", "lora_bias", "trainable_token_indices"):
        if config.get(word) not in (None, False, "none", [], {}):
            raise Refused(f"{source} was made with {word}={config[word]!r}, which a plain LoRA does not have")
    file = source / WEIGHTS
    if not file.is_file() and (source / "adapter_model.bin").is_file():
        raise Refused(f"{source} holds pickled weights, which can run code when read: save it with safetensors")
    tensors, _ = read_safetensors(file)
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        where, _, kind = key.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
        if kind not in _FACTORS or tensor.ndim not in (2, 4):
            raise Refused(f"{file}: {key} of shape {tuple(tensor.shape)} is no factor of a linear map")
        factors.setdefault(where, {})[kind] = tensor
    starts: dict[str, Parts] = {}
    ranks: dict[str, int] = {}
    for where, pair in factors.items():
        patch = _patch(pair)
        if len(pair) < 2 or pair["lora_A"].shape[0] != pair["lora_B"].shape[1] or pair["lora_B"][0, 0].numel() != 1:
            raise Refused(f"{file}: the factors of {where} do not multiply")
        ranks[where] = len(pair["lora_A"])
        left, right = (
            pair[kind].flatten(1).to(torch.promote_types(pair[kind].dtype, torch.float32)) for kind in _FACTORS
        )
        scale = scale_of(config, where, ranks[where])
        path: StructuredMatrix = low_rank(left, right)
        starts[where] = Parts(path if scale == 1.0 else Scaled(path, scale=scale), patch=patch)
    adapter = Adapter(model, name, ADAPTERS.find("lora"), {}, ranks)
    put_in(adapter, starts)
    return adapter


def _patch(pair: Mapping[str, Tensor]) -> Pair | None:
    """Height and width of the patches that factors act on; None for those of a linear layer."""
    shape = pair["lora_A"].shape if "lora_A" in pair else ()
    return (shape[2], shape[3]) if len(shape) == 4 else None


def scale_of(config: dict[str, Any], where: str, rank: int) -> float:
    """alpha / r of one matrix, or alpha / sqrt(r) where the adapter is rank-stabilised; patterns are as in PEFT."""
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if where == pattern or where.endswith(f".{pattern}"):
            alpha = value
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def save_peft(adapter: Adapter, directory: str | os.PathLike[str], rank: int | None = None) -> dict[str, float]:
    """Writes an adapter as a LoRA for the original model, which PEFT reads.

    What an adapter changed of W is written as the best product of the asked rank: exactly for a plain LoRA; from the
    double rank of `path - taken` for those that split W; from the whole change for any other.

    Args:
        adapter: one that replaces no base.
        directory: new or empty.
        rank: of every matrix; None for the adapter's own.

    Returns:
        ||change - written||_F / ||change||_F by matrix: what the conversion costs.

    Raises:
        Refused: an adapter that has no matrix or replaced W, a dilated convolution, a rank below 1, or a
            `directory` that is taken.
    """
    parts = {name: parts_of(adapter, name) for name in adapter.places}
    transposed = any(is_conv1d(place.base) for place in adapter.places.values())
    causal = hasattr(adapter.model, "generation_config")
    return _write(parts, adapter.ranks, Path(directory), rank, causal, transposed)


def export_adapter(
    source: str | os.PathLike[str], directory: str | os.PathLike[str], rank: int | None = None
) -> dict[str, float]:
    """`save_peft` of an adapter on disk, without its model."""
    contents, parts = read_adapter(Path(source))
    ranks = {where: int(entry["rank"]) for where, entry in contents["matrices"].items()}
    causal = bool(contents.get("causal", True))
    return _write(parts, ranks, Path(directory), rank, causal, bool(contents.get("transposed")))


def _write(
    parts: dict[str, Parts], ranks: dict[str, int], directory: Path, rank: int | None, causal: bool, transposed: bool
) -> dict[str, float]:
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, float] = {}
    if rank is not None and rank < 1:
        raise Refused(f"rank={rank} must be at least 1")
    for name, part in parts.items():
        if part.frozen is not None or part.whole:
            raise Refused(f"the adapter replaced {name} itself, so its path means nothing beside the original")
        if part.dilation != (1, 1):
            raise Refused(f"{name} is a convolution of dilation {part.dilation}, which a LoRA of PEFT leaves out")
        left, right, errors[name] = as_low_rank(part.path, part.taken, rank or ranks[name])
        if part.patch is not None:
            left, right = left[:, :, None, None], right.reshape(len(right), -1, *part.patch)
        factors[name] = left, right
    write_lora(factors, directory, causal=causal, transposed=transposed, errors=errors)
    return errors


def write_lora(
    factors: Mapping[str, tuple[Tensor, Tensor]],
    directory: Path,
    *,
    causal: bool,
    transposed: bool,
    errors: Mapping[str, float] | None = None,
) -> None:
    """Writes factors by matrix as a LoRA of PEFT with the scale 1, errors in the file's header.

    They are (out, r) and (r, in), or those of a convolution: (out, r, 1, 1) and (r, channels, height, width).
    """
    tensors: dict[str, Tensor] = {}
    for name, (left, right) in factors.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = right.contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = left.contiguous()
    ranks = {name: len(right) for name, (_, right) in factors.items()}
    metadata = {"format": "pt", **sealed(tensors), **({"errors": json.dumps(dict(errors))} if errors else {})}
    with new_directory(directory) as partial:
        write_json(peft_config(ranks, causal=causal, fan_in_fan_out=transposed), partial / CONFIG)
        write_safetensors(tensors, partial / WEIGHTS, metadata)


def peft_config(ranks: dict[str, int], *, causal: bool, fan_in_fan_out: bool) -> dict[str, Any]:
    """PEFT's configuration of a LoRA with these ranks and the scale 1."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": list(ranks),
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": others,
        "alpha_pattern": others,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
    }


@torch.no_grad()
def as_low_rank(path: StructuredMatrix, taken: StructuredMatrix | None, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best factors (out, r) and (r, in) of `path - taken`, and their relative error."""
    terms = [(path, 1.0)] if taken is None else [(path, 1.0), (taken, -1.0)]
    found = [factors_of(term, sign) for term, sign in terms]
    if all(pair is not None for pair in found):
        left = torch.cat([pair[0] for pair in found if pair], 1)
        right = torch.cat([pair[1] for pair in found if pair])
        if len(right) <= rank:
            return left, right, 0.0
        # The SVD of the product from that of its small core: left right = Q (R S^T) P^T.
        (q, r), (p, s) = torch.linalg.qr(left.double()), torch.linalg.qr(right.double().T)
        u, values, vh = torch.linalg.svd(r @ s.T, full_matrices=False)
        u, vh = q @ u, vh @ p.T
    else:
        change = sum((sign * term.to_dense().double() for term, sign in terms), torch.zeros((), dtype=torch.float64))
        u, values, vh = torch.linalg.svd(change, full_matrices=False)
    total = torch.linalg.vector_norm(values)
    error = float(torch.linalg.vector_norm(values[rank:]) / total) if total > 0 else 0.0
    root = values[:rank].sqrt()
    return (u[:, :rank] * root).float(), (root[:, None] * vh[:rank]).float(), error


@torch.no_grad()
def factors_of(path: StructuredMatrix, sign: float = 1.0) -> tuple[Tensor, Tensor] | None:
    """The factors of a product of two dense matrices, times a sign and a scale; None for any other structure."""
    if isinstance(path, Scaled):
        return factors_of(path.matrix, sign * path.scale)
    parts = path.operands()
    if not (isinstance(path, Chain) and len(parts) == 2 and all(isinstance(part, Dense) for part in parts)):
        return None
    left, right = (part.to_dense().detach() for part in parts)
    return sign * left, right
