"""Writing adapters in the layout of Hugging Face PEFT: any adapter that has a matrix, as a LoRA."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from eckart.errors import Refused
from eckart.files.directories import new_directory
from eckart.files.json import read_json, write_json
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.change import as_low_rank
from eckart.jobs.adapt.files import KEPT, TENSORS, TRAINING, Parts, parts_of, read_adapter
from eckart.jobs.adapt.host import CLASSIFIERS, Host, host, known
from eckart.jobs.adapt.peft_config import peft_config

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
EXACT = 1e-6
"""Relative errors up to this are rounding."""


def save_peft(adapter: Adapter, directory: str | os.PathLike[str], rank: int | None = None) -> dict[str, float]:
    """Writes an adapter as a LoRA for the original model, which PEFT reads.

    Nothing is lost unless a rank is asked for: a plain LoRA is written as it is, and an adapter that took its start out
    of W with twice its rank, for what it changed of W is the difference of two products.

    Args:
        adapter: one that replaces no base.
        directory: new or empty.
        rank: at most, of every matrix; the best product of that rank is written, with the error that is returned. None
            for all of the change.

    Returns:
        ||change - written||_F / ||change||_F by matrix: zero up to rounding where no rank is asked for.

    Raises:
        Refused: an adapter that has no matrix, replaced W, or changed it so much that exact factors are larger than W
            and no rank was asked for; a layer that PEFT has no place for; a rank below 1; a `directory` that is taken.
    """
    for told in adapter.moved():
        warnings.warn(told, stacklevel=2)
    parts = {name: parts_of(adapter, name) for name in adapter.paths}
    return _write(parts, Path(directory), rank, host(adapter.model, parts))


def export_adapter(
    source: str | os.PathLike[str], directory: str | os.PathLike[str], rank: int | None = None
) -> dict[str, float]:
    """`save_peft` of an adapter on disk, without its model, which is named where the adapter's training named it."""
    contents, parts = read_adapter(Path(source))
    tensors, _ = read_safetensors(Path(source) / TENSORS)
    kept = {key.removeprefix(KEPT): tensor for key, tensor in tensors.items() if key.startswith(KEPT)}
    training = Path(source) / TRAINING
    base = read_json(training).get("model") if training.is_file() else None
    return _write(parts, Path(directory), rank, known(contents, kept), base)


def _write(
    parts: Mapping[str, Parts], directory: Path, rank: int | None, model: Host, base: str | None = None
) -> dict[str, float]:
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, float] = {}
    if rank is not None and rank < 1:
        raise Refused(f"rank={rank} must be at least 1")
    model.check(parts)
    for name, part in parts.items():
        if part.frozen is not None or part.whole:
            raise Refused(f"the adapter replaced {name} itself, so its path means nothing beside the original")
        if part.dilation != (1, 1) and part.patch != (1, 1):
            raise Refused(f"{name} is a convolution of dilation {part.dilation}, which a LoRA of PEFT leaves out")
        try:
            left, right, errors[name] = as_low_rank(part.path, part.taken, rank)
        except Refused as error:
            raise Refused(f"{name}: {error}") from error
        if part.patch is not None:
            size = part.patch[part.line :]
            left, right = left.reshape(*left.shape, *(1 for _ in size)), right.reshape(len(right), -1, *size)
        factors[name] = left, right
    write_lora(factors, directory, model, errors, base)
    return errors


def write_lora(
    factors: Mapping[str, tuple[Tensor, Tensor]],
    directory: Path,
    model: Host,
    errors: Mapping[str, float] | None = None,
    base: str | None = None,
) -> None:
    """Writes factors by matrix as a LoRA of PEFT with the scale 1, errors in the file's header, and what it is for.

    They are (out, r) and (r, in), or those of a convolution: (out, r, 1, 1) and (r, channels, height, width), without
    the height for one of a sequence.
    """
    tensors = {f"{PREFIX}{name}": tensor.detach().contiguous().clone() for name, tensor in model.kept.items()}
    for name, (left, right) in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = right.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = left.contiguous()
    ranks = {name: len(right) for name, (_, right) in factors.items()}
    config = peft_config(ranks, task=model.task, transposed=model.transposed, namesakes=model.namesakes)
    config["modules_to_save"] = list(CLASSIFIERS) if model.kept else None
    config["base_model_name_or_path"] = base
    metadata = {"format": "pt", **sealed(tensors), **({"errors": json.dumps(dict(errors))} if errors else {})}
    with new_directory(directory) as partial:
        write_json(config, partial / CONFIG)
        write_safetensors(tensors, partial / WEIGHTS, metadata)
