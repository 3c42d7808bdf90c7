"""Short names for what is too large to compare: the same for the same model, data and request, and for no other."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from eckart.statistics.batches import Batch
from eckart.statistics.needs import Need

CHUNK = 1 << 26
"""Bytes that a thread takes at a time. SHA-256 is as fast as memory where a processor knows it, and lets others run."""
UNCOUNTED = frozenset(
    {"_name_or_path", "name_or_path", "transformers_version", "gradient_checkpointing", "input_dtype"}
)
"""Settings that say where a model comes from, how memory is spared or what it was last given, not what it computes."""
IMPLEMENTATIONS = ("_attn_implementation", "_experts_implementation")
"""Choices among ways to compute the same that a configuration does not write down."""


def model_fingerprint(model: nn.Module) -> str:
    """Names what a model computes: all bytes of its parameters and buffers, its classes, settings and modes.

    Reads every tensor once. Not named are hooks, and what a file of a class of one's own says besides its name.
    """
    digest = hashlib.sha256()
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    own = {_place(tensor): tensor for _, tensor in named}
    digests = dict(zip(own, tensor_digests(own.values()), strict=True))
    for name, tensor in named:
        digest.update(f"{name}\0".encode() + digests[_place(tensor)])
    configurations: dict[int, Any] = {}
    packages = {"torch"}
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module)
        packages.add(kind.__module__.partition(".")[0])
        settings = {key: _setting(value) for key, value in sorted(vars(module).items()) if _counts(key, value)}
        digest.update(_json([name, f"{kind.__module__}.{kind.__qualname__}", settings]))
        config = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            configurations.setdefault(id(config), config)
    for config in configurations.values():
        written = {key: value for key, value in config.to_dict().items() if key not in UNCOUNTED}
        digest.update(_json([written, [getattr(config, name, None) for name in IMPLEMENTATIONS]]))
    digest.update(_json([[package, _version(package)] for package in sorted(packages)]))
    return digest.hexdigest()


def data_fingerprint(*parts: Sequence[Batch]) -> str:
    """Names data that a model is run on: every entry of every batch, in order."""
    digest = hashlib.sha256()
    for batches in parts:
        digest.update(_json(len(batches)))
        for batch in batches:
            entries = {"": batch} if isinstance(batch, Tensor) else batch
            tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
            found = [each.hex() for each in tensor_digests(tensors.values())]
            others = sorted((key, repr(value)) for key, value in entries.items() if key not in tensors)
            digest.update(_json([sorted(zip(tensors, found, strict=True)), others]))
    return digest.hexdigest()


def statistics_fingerprints(
    model: str, data: str, needs: Iterable[Need], seed: int, mixed_precision: bool = False
) -> Callable[[Sequence[str]], str]:
    """What gives the name of the statistics of some modules.

    Args:
        model: its `model_fingerprint`.
        data: `data_fingerprint` of the batches.
        needs: what is measured.
        seed: of the sampled labels.
        mixed_precision: as for `collect`.
    """
    asked = [sorted(need.value for need in needs), seed, mixed_precision]
    request = [model, data, asked, sources("eckart.statistics", "eckart.layouts")]
    return lambda modules: hashlib.sha256(_json([request, list(modules)])).hexdigest()[:32]


def tensor_digests(tensors: Iterable[Tensor]) -> list[bytes]:
    """SHA-256 of dtype, shape and bytes of each tensor, whatever its strides and device."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [_tensor_digest(tensor, pool) for tensor in tensors]


def _tensor_digest(tensor: Tensor, pool: ThreadPoolExecutor) -> bytes:
    data = memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\0".encode())
    for part in pool.map(_sha256, parts) if len(parts) > 1 else map(_sha256, parts):
        digest.update(part)
    return digest.digest()


def _sha256(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Tells tensors apart that are not the same numbers in the same memory."""
    where = tensor.data_ptr() if tensor.numel() else 0
    return str(tensor.device), where, tensor.dtype, tuple(tensor.shape), tensor.stride()


@cache
def sources(*packages: str) -> str:
    """Names the code of some packages or modules, so that what an older one computed is not taken for its work."""
    digest = hashlib.sha256()
    for package in packages:
        parent, _, module = package.rpartition(".")
        root = importlib.resources.files(parent)
        folder = root / module
        files = sorted(folder.iterdir(), key=lambda f: f.name) if folder.is_dir() else [root / f"{module}.py"]
        for file in files:
            if file.name.endswith(".py"):
                digest.update(f"{package} {file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _counts(name: str, value: object) -> bool:
    return not name.startswith("_") and name not in UNCOUNTED and not isinstance(value, nn.Module | Tensor)


def _setting(value: object) -> object:
    """A setting of a module as JSON; what no JSON says by the name of its class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return [[str(key), _setting(each)] for key, each in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(_settings(value))
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    named = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _settings(values: Iterable[object]) -> Iterator[object]:
    found = [_setting(value) for value in values]
    return iter(sorted(found, key=str) if isinstance(values, set | frozenset) else found)


def _json(value: object) -> bytes:
    return json.dumps(value, default=str).encode()
