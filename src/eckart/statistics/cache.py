"""Statistics on disk, and passes that fit in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart._version import __version__
from eckart.errors import Refused
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.layouts.patches import patch_of
from eckart.machine import return_freed_memory
from eckart.statistics import second_moment
from eckart.statistics.batch_checks import check_batches
from eckart.statistics.batches import Batch
from eckart.statistics.collect import collect
from eckart.statistics.fingerprint import data_fingerprint, model_fingerprint, statistics_fingerprints
from eckart.statistics.needs import Need, Statistics
from eckart.statistics.sample import SAMPLED_PAIRS

OnProgress = Callable[[int, int], None]
Collect = Callable[..., dict[str, Statistics]]
"""With the arguments of `collect`."""


def cache_directory() -> Path:
    """Where statistics are kept between runs: $ECKART_CACHE, or eckart in the user's cache directory."""
    root = os.environ.get("ECKART_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eckart"


def statistics_for(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    needs: Sequence[Need],
    batches: Sequence[Batch],
    *,
    seed: int = 0,
    mixed_precision: bool = False,
    cache: Path | None = None,
    memory: int | None = None,
    identity: str | None = None,
    collect: Collect = collect,
    on_progress: OnProgress | None = None,
) -> tuple[dict[str, Statistics], int]:
    """Statistics of the modules, from the cache or from as many passes as fit in memory.

    Args:
        model, modules, needs, batches, seed, mixed_precision, on_progress: as for `collect`.
        cache: a directory for the statistics; None keeps them in memory.
        memory: bytes that accumulators may take; more modules than fit are measured in further passes.
        identity: `model_fingerprint(model)`, where that is known already.
        collect: what runs a pass; another than that of this process gives the same to rounding.

    Returns:
        Statistics by name, and the passes it took: 0 when all came from the cache.

    Raises:
        Refused: the cache is not a directory that can be made; or as `check_batches` and `collect`.
    """
    check_batches(model, batches)
    if not needs:
        return {name: Statistics(patch=patch_of(module)) for name, module in modules.items()}, 0
    if cache:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"statistics cannot be kept in {cache} ({error}): set ECKART_CACHE") from error
        identity = identity or model_fingerprint(model)
        name = statistics_fingerprints(identity, data_fingerprint(batches), needs, seed, mixed_precision)
    portions = chunks(modules, needs, memory)
    results: dict[str, Statistics] = {}
    passes = 0
    for i, chunk in enumerate(portions):
        file = cache / f"{name(chunk)}.safetensors" if cache else None
        part = {name: modules[name] for name in chunk}
        found = read_statistics(file, part) if file else None
        if found is None:

            def tick(done: int, total: int, offset: int = i) -> None:
                if on_progress:
                    on_progress(offset * total + done, len(portions) * total)

            found = collect(model, part, needs, batches, seed=seed, mixed_precision=mixed_precision, on_progress=tick)
            passes += 1
            if file:
                write_statistics(file, found)
                # What a later run will read, to the bit: an interrupted job must go on to the same result.
                found = read_statistics(file, part) or found
        results.update(found)
    return_freed_memory()
    return results, passes


def chunks(modules: Mapping[str, nn.Module], needs: Sequence[Need], memory: int | None) -> list[list[str]]:
    """The names of modules whose statistics fit in memory together, in order; at least one list."""
    found: list[list[str]] = [[]]
    used = 0
    for name, module in modules.items():
        size = 12 * sum(min(n, second_moment.LARGEST) ** 2 for n in _sides(module)) if _has_moments(needs) else 0
        size += 4 * SAMPLED_PAIRS * sum(_sides(module)) if Need.GRADIENT_PAIRS in needs else 0
        if memory is not None and found[-1] and used + size > memory:
            found.append([])
            used = 0
        found[-1].append(name)
        used += size
    return found


def _sides(module: nn.Module) -> Sequence[int]:
    """Both sides of a module's matrix, which need not have it as one tensor."""
    weight: Any = module.weight
    first, *others = weight.shape
    return first, prod(others)


def _has_moments(needs: Sequence[Need]) -> bool:
    return bool({Need.INPUT_SECOND_MOMENT, Need.GRADIENT_SECOND_MOMENT} & set(needs))


def write_statistics(file: Path, statistics: Mapping[str, Statistics]) -> None:
    """Matrices in float32, vectors in float64; a tensor that several modules share is written once."""
    tensors: dict[str, Tensor] = {}
    where: dict[int, str] = {}
    index: dict[str, dict[str, str | float]] = {}
    for name, entry in statistics.items():
        index[name] = {"tokens": entry.tokens, "uses": entry.uses, "lookup": entry.lookup}
        for need in Need:
            value = getattr(entry, need.value)
            if value is None:
                continue
            label = where.setdefault(id(value), f"{name}/{need.value}")
            tensors[label] = value.float() if value.ndim == 2 else value.double()
            index[name][need.value] = label
    text = json.dumps(index)
    write_safetensors(tensors, file, {STORED: __version__, "index": text, "seal": _seal(file, text), **sealed(tensors)})


def _seal(file: Path, index: str) -> str:
    """By which an index is known to be what was written under that name; tensors have checksums."""
    return hashlib.sha256(json.dumps([file.name, index]).encode()).hexdigest()


def read_statistics(file: Path, modules: Mapping[str, nn.Module]) -> dict[str, Statistics] | None:
    """Statistics mapped from a file; None where it is missing, damaged or another's."""
    try:
        loaded, metadata = read_safetensors(file)
        if metadata["seal"] != _seal(file, metadata["index"]):
            return None
        index = json.loads(metadata["index"])
        return {
            name: Statistics(
                tokens=index[name]["tokens"],
                uses=index[name]["uses"],
                lookup=index[name]["lookup"],
                patch=patch_of(module),
                takes_bias=True,
                **{need.value: loaded[index[name][need.value]] for need in Need if need.value in index[name]},
            )
            for name, module in modules.items()
        }
    except (OSError, KeyError, ValueError):
        return None


@torch.no_grad()
def finite_weights(modules: Mapping[str, nn.Module]) -> None:
    """Raises Refused that names the first parameter of the modules that has NaN or Inf entries."""
    for prefix, module in modules.items():
        for name, weight in module.named_parameters(prefix):
            if weight.is_meta:
                continue  # it is looked at when it is read
            # A finite sum proves finite entries in one pass; only an infinite one can be due to overflow.
            if not (torch.isfinite(weight.sum()) or torch.isfinite(weight).all()):
                bad = int((~torch.isfinite(weight)).sum())
                raise Refused(f"{name} has {bad} NaN or Inf entries of {weight.numel()}")
