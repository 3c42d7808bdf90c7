"""Saving and loading: tensors in safetensors, structures as JSON; no pickle and no code from a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart._version import __version__
from eckart.errors import Refused, abridged
from eckart.files.checksums import checksums_in_files, seal
from eckart.files.headers import read_headers
from eckart.files.json import read_json, write_json
from eckart.files.tensors import CHECKSUMS, SEAL, read_safetensors, write_safetensors
from eckart.layouts.look_ups import scale_of
from eckart.layouts.patches import is_convolution
from eckart.models.convolution import StructuredConv1d, StructuredConv2d, embedding_stand_in, stand_in
from eckart.models.fused_experts import taken_apart, unfuse_named
from eckart.models.modules import StructuredEmbedding, StructuredLinear, Tied, TiedEmbedding, TiedLinear
from eckart.models.places import set_module
from eckart.models.saved_form import as_saved
from eckart.models.sites import Site
from eckart.models.tensor_checks import described
from eckart.models.weights import Readable
from eckart.structures import Shared, StructuredMatrix, from_spec
from eckart.structures.shared import bind, locate

FORMAT = 1
"""Raised when a file that this version writes could not be read by the one before."""

MANIFEST = "eckart.json"
_KINDS = ("linear", "conv2d", "conv1d", "embedding", "tied", "tied-embedding")
_SHARD_BYTES = 5 * 10**9

Manifest = dict[str, Any]


def manifest(model: nn.Module) -> Manifest:
    """What a loader must know to rebuild the structured modules of a model: JSON, no tensors.

    Raises:
        Refused: a matrix is tied to one that an adapter stands beside.
    """
    modules: dict[str, Any] = {}
    saved = dict(as_saved(model))
    owners = {id(m): n for n, m in saved.items() if isinstance(m, StructuredLinear | StructuredEmbedding)}
    locate(_structures(saved))
    for name, module in saved.items():
        if isinstance(module, Tied) and id(module.owner) not in owners:
            raise Refused(f"{name} is tied to a matrix that an adapter stands beside: merge() or remove() it first")
        if isinstance(module, TiedLinear):
            modules[name] = {"module": "tied", "bias": module.bias is not None, "to": owners[id(module.owner)]}
        elif isinstance(module, TiedEmbedding):
            modules[name] = {"module": "tied-embedding", "to": owners[id(module.owner)]}
        elif isinstance(module, StructuredEmbedding):
            modules[name] = {"module": "embedding", "structure": module.structure.spec(), **_frozen(module.structure)}
        elif isinstance(module, StructuredLinear):
            entry = {"module": _kind(module), "bias": module.bias is not None, "structure": module.structure.spec()}
            modules[name] = entry | _frozen(module.structure)
    apart = list(taken_apart(model))
    return {"format": FORMAT, "version": __version__, "modules": modules, **({"unfused": apart} if apart else {})}


def _frozen(structure: StructuredMatrix) -> dict[str, list[str]]:
    """The leaves that do not train, where others do."""
    leaves = dict(structure.named_parameters())
    still = [leaf for leaf, parameter in leaves.items() if not parameter.requires_grad]
    return {"frozen": still} if 0 < len(still) < len(leaves) else {}


def _kind(module: StructuredLinear) -> str:
    if isinstance(module, StructuredConv1d):
        return "conv1d"
    return "conv2d" if isinstance(module, StructuredConv2d) else "linear"


def structures(model: nn.Module) -> dict[str, StructuredMatrix]:
    """The structures of a model, by the names of the modules that hold them."""
    return _structures(dict(model.named_modules()))


def _structures(modules: Mapping[str, nn.Module]) -> dict[str, StructuredMatrix]:
    kinds = StructuredLinear, StructuredEmbedding
    return {name: module.structure for name, module in modules.items() if isinstance(module, kinds)}


def check_manifest(entry: Any, where: str) -> dict[str, dict[str, Any]]:
    """The modules of a manifest; Refused where it is newer than this version or malformed."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("modules"), Mapping):
        raise Refused(f"{where}: not an eckart manifest")
    if not isinstance(entry.get("format"), int) or entry["format"] > FORMAT:
        raise Refused(
            f"{where} was written by eckart {entry.get('version', '?')} in format {entry.get('format')}; "
            f"this is eckart {__version__}, which reads formats up to {FORMAT}: upgrade with pip install -U eckart"
        )
    for name, module in entry["modules"].items():
        if not isinstance(module, Mapping):
            raise Refused(f"{where}: the entry of {name!r} is malformed: {str(module)[:80]!r}")
    apart = entry.get("unfused", [])
    if not isinstance(apart, list) or not all(isinstance(name, str) for name in apart):
        raise Refused(f'{where}: "unfused" is no list of names: {str(apart)[:80]!r}')
    return dict(entry["modules"])


def rebuild(model: nn.Module, modules: Mapping[str, Mapping[str, Any]], unfused: Sequence[str] = ()) -> None:
    """Swaps the structured modules a manifest names into a model, their tensors on the meta device.

    Args:
        model: changed in place.
        modules: from `check_manifest`.
        unfused: names of fused experts that are taken apart first.

    Raises:
        Refused: a name the model does not have, an unknown kind, or a structure that does not fit.
    """
    unfuse_named(model, unfused)
    existing = dict(model.named_modules(remove_duplicate=False))
    made: dict[str, nn.Module] = {}
    for name, entry in sorted(modules.items(), key=lambda item: str(item[1].get("module")).startswith("tied")):
        if name not in existing:
            raise Refused(f"the checkpoint names a module {name!r} that {type(model).__name__} does not have")
        made[name] = _rebuilt(name, entry, existing[name], made.get(str(entry.get("to"))))
    bind({n: m.structure for n, m in made.items() if isinstance(m, StructuredLinear | StructuredEmbedding)})
    for name, module in made.items():
        for alias, old in existing.items():
            if old is existing[name]:
                set_module(model, alias, module)


def freeze(name: str, structure: StructuredMatrix, entry: Mapping[str, Any]) -> None:
    """Lets leaves not train that did not when they were saved; Refused where the structure has no such leaves."""
    leaves, frozen = dict(structure.named_parameters()), entry.get("frozen", [])
    if not isinstance(frozen, list) or not all(str(leaf) in leaves for leaf in frozen):
        raise Refused(f"{name}: what does not train, {abridged(frozen)}, is not all in {abridged(list(leaves), 200)}")
    for leaf in frozen:
        leaves[leaf].requires_grad_(False)


def _place(dense: nn.Module) -> str:
    """The kind of module that can stand in for a layer."""
    if isinstance(dense, nn.Embedding):
        return "embedding"
    return ("conv1d" if isinstance(dense, nn.Conv1d) else "conv2d") if is_convolution(dense) else "linear"


def _rebuilt(name: str, entry: Mapping[str, Any], dense: Any, owner: Any) -> nn.Module:
    """The module that an entry of a manifest describes; `dense` is what stands there, `owner` what it is tied to."""
    kind, weight = entry.get("module"), getattr(dense, "weight", None)
    if kind not in _KINDS:
        raise Refused(f"{name}: unknown module {kind!r}; this version knows {', '.join(_KINDS)}")
    fits = _place(dense) == {"tied": "linear", "tied-embedding": "embedding"}.get(kind, kind)
    if not isinstance(weight, Tensor) or weight.ndim < 2 or isinstance(dense, Readable) or not fits:
        raise Refused(f"{name}: a module of kind {kind!r} cannot stand in for {type(dense).__name__}")
    tied = kind.startswith("tied")
    if tied and not isinstance(owner, StructuredLinear | StructuredEmbedding):
        raise Refused(f"{name} is tied to {entry.get('to')!r}, which is not structured")
    structure: StructuredMatrix = owner.structure if tied else from_spec(entry.get("structure", {}), name)
    freeze(name, structure, entry)
    shape = Site(name, dense).shape
    if shape != structure.shape:
        raise Refused(f"{name}: a structure of shape {structure.shape} does not fit a matrix of shape {shape}")
    if kind == "embedding":
        return embedding_stand_in(structure, dense)
    if kind == "tied-embedding":
        return TiedEmbedding(owner, scale_of(dense), dense.padding_idx)
    dtype = weight.dtype if isinstance(structure, Shared) else structure.dtype
    bias = torch.empty(structure.shape[0], dtype=dtype, device="meta") if entry.get("bias") else None
    return TiedLinear(owner, bias) if tied else stand_in(structure, bias, dense)


def state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with each tensor once: a name that shares another's storage is left out."""
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    unique = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        unique[name] = tensor.contiguous()
    return unique


def write_tensors(tensors: Mapping[str, Tensor], directory: Path, shard_bytes: int = _SHARD_BYTES) -> None:
    """Writes `model.safetensors`, or shards and their index where it is larger than `shard_bytes`."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        bytes_ = tensor.numel() * tensor.element_size()
        if shards[-1] and size + bytes_ > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += bytes_
    if len(shards) == 1:
        write_safetensors(shards[0], directory / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(shard, directory / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(index, directory / "model.safetensors.index.json")


def weight_files(directory: Path) -> list[Path]:
    """`model.safetensors`, or the files its index names.

    Raises:
        Refused: one that is missing, or an index that is damaged or names a file outside the directory.
    """
    index = directory / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.exists() and not (directory / names[0]).is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, Mapping):
            raise Refused(f"{index} has no weight_map")
        names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if not re.fullmatch(r"[\w.\-]+\.safetensors", name):
            raise Refused(f"{index} names {name!r}, which is not a safetensors file of this directory")
        if not (directory / name).is_file():
            raise Refused(f"{directory} has no {name}")
    return [directory / name for name in names]


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a directory, mapped from its safetensors files.

    Raises:
        Refused: as `weight_files`, or a damaged file.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(directory):
        tensors |= read_safetensors(file)[0]
    return tensors


def sealed(contents: Manifest, directory: Path) -> Manifest:
    """A manifest with its checksum, and those of all tensors of a directory, from its files."""
    sums = checksums_in_files(read_headers(weight_files(directory)))
    return {**contents, SEAL: seal(described(contents)), CHECKSUMS: sums}
