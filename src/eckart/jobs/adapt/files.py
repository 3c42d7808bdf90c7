"""Adapters on disk, in eckart's own form: tensors in safetensors, the rest as JSON."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eckart._version import __version__
from eckart.adapters.contract import ADAPTERS, Start
from eckart.errors import Refused, abridged
from eckart.files.checksums import check_checksums, check_seal, checksums, seal
from eckart.files.directories import new_directory
from eckart.files.headers import read_headers
from eckart.files.json import read_json, write_json
from eckart.files.tensors import CHECKSUMS, SEAL, write_safetensors
from eckart.jobs.adapt.adapted import Adapted
from eckart.jobs.adapt.adapter import Adapter, check_name, check_unshared
from eckart.jobs.adapt.bases import matrix_shape
from eckart.jobs.adapt.beside import check_beside, fingerprint
from eckart.jobs.adapt.host import host
from eckart.jobs.adapt.run import base_of, find_bases, switched_off
from eckart.layouts.patches import Pair
from eckart.models.fused_experts import apart
from eckart.models.places import set_module
from eckart.models.tensor_checks import check_entries, check_stored
from eckart.structures import StructuredMatrix, from_spec, patch_of
from eckart.structures._checks import flag_option, size_option

FORMAT = 1
ADAPTER = "adapter.json"
TENSORS = "adapter.safetensors"
TRAINING = "training.json"
"""What training did, beside the adapter."""
RENAMED = {"householder": "hta"}
"""Methods that have another name now than in files of 0.1.0."""
KEPT = "/kept/"
"""Before the names of tensors that are no adapter's but go along with it to PEFT."""
_PARTS = ("path", "taken", "frozen")

_OF_OTHERS = re.compile(r"^(lora|lycoris)_(unet|te\d?|transformer)_|[._]lora(_linear_layer)?[._](up|down|A|B)\b")
"""What is in the names of tensors of a LoRA that is not laid out as PEFT lays it out."""


@dataclass(frozen=True)
class Parts:
    """What one matrix of an adapter is made of; see `Adapted`.

    Attributes:
        path: what trains.
        taken: what was taken out of W for it.
        frozen: what stands in the place of W.
        whole: whether the path does.
        patch: height and width of the patches that W meets; None for a linear layer.
        dilation: rows and columns from one entry of a patch to the next.
        line: whether the patches are of a sequence, which is one row.
    """

    path: StructuredMatrix
    taken: StructuredMatrix | None = None
    frozen: StructuredMatrix | None = None
    whole: bool = False
    patch: Pair | None = None
    dilation: Pair = (1, 1)
    line: bool = False


def save_adapter(adapter: Adapter, directory: str | os.PathLike[str]) -> None:
    """Writes an adapter: its paths, what they were at the start if that was taken out of W, and replaced bases.

    Args:
        adapter: of a model, which is not written itself.
        directory: new or empty.

    Raises:
        Refused: the directory exists and is not empty.
    """
    for told in adapter.moved():
        warnings.warn(told, stacklevel=2)
    with new_directory(Path(directory)) as partial:
        write_adapter(adapter, partial)


def write_adapter(adapter: Adapter, directory: Path) -> None:
    """`save_adapter` into a directory that exists."""
    matrices: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name in adapter.paths:
        entry: dict[str, Any] = {"rank": adapter.ranks[name], "trains": adapter.places[name].trains[adapter.name]}
        parts = parts_of(adapter, name)
        entry |= {} if parts.frozen is not None else {"beside": fingerprint(adapter.places[name])}
        entry |= {"whole": True} if parts.whole else {}
        entry |= {"kernel": parts.patch, "dilation": parts.dilation} if parts.patch else {}
        entry |= {"line": True} if parts.line else {}
        for part in _PARTS:
            structure = getattr(parts, part)
            if structure is None:
                continue
            entry[part] = structure.spec()
            for leaf, tensor in structure.state_dict().items():
                tensors[f"{name}/{part}/{leaf}"] = tensor.detach().contiguous().clone()
        matrices[name] = entry
    model = host(adapter.model, adapter.places)
    tensors |= {KEPT + name: tensor.detach().contiguous().clone() for name, tensor in model.kept.items()}
    write_safetensors(tensors, directory / TENSORS, {"format": "pt"})
    card = {"method": adapter.method.name, "name": adapter.name, "alpha": adapter.alpha, **model.card()}
    contents = {"format": FORMAT, "eckart": __version__, **card, "matrices": matrices}
    sums = {SEAL: seal(_described(contents)), CHECKSUMS: checksums(tensors)}
    write_json({**contents, **sums}, directory / ADAPTER)


def _described(contents: Mapping[str, Any]) -> dict[str, Any]:
    """What of the JSON of an adapter is sealed: all but what other checksums hold, and the version."""
    return {key: value for key, value in contents.items() if key not in ("eckart", CHECKSUMS, SEAL)}


def parts_of(adapter: Adapter, name: str) -> Parts:
    """The structures of one matrix of an adapter."""
    place = adapter.places[name]
    taken: Any = dict(place.taken.items()).get(adapter.name)
    base: Any = place.base
    frozen = base.structure if adapter.name in place.replaced else None
    parts = Parts(adapter.paths[name], taken, frozen, adapter.name in place.whole)
    geometry = place.geometry
    if geometry is None:
        return parts
    return replace(parts, patch=geometry.patch, dilation=geometry.dilation, line=geometry.line)


def load_own(model: nn.Module, source: Path, name: str | None) -> Adapter:
    """Puts what `save_adapter` wrote beside the linear maps of a model; see `eckart.load_adapter`."""
    contents, parts = read_adapter(source)
    written = str(contents.get("method"))
    method = ADAPTERS.find(RENAMED.get(written, written))
    matrices = contents["matrices"]
    ranks = {where: entry["rank"] for where, entry in matrices.items()}
    found = Adapter(model, name or str(contents.get("name")), method, {}, ranks)
    alpha = contents.get("alpha")
    if not (alpha is None or (isinstance(alpha, int | float) and abs(alpha) < math.inf)):
        raise Refused(f"{source / ADAPTER}: alpha is {abridged(alpha)}, which is no number")
    found.alpha = None if alpha is None else float(alpha)
    put_in(found, parts, {where: entry["trains"] for where, entry in matrices.items()})
    check_beside(found.places, {where: entry.get("beside") for where, entry in matrices.items()}, source)
    return found


def read_adapter(source: Path) -> tuple[dict[str, Any], dict[str, Parts]]:
    """What the JSON of a saved adapter says, and the structures of each matrix.

    Raises:
        Refused: no adapter there, one of another format, or damaged files.
    """
    if not source.exists():
        raise Refused(f"there is no file or directory {source}")
    if not (source / ADAPTER).is_file():
        if files := files_of_others(source):
            raise Refused(
                f"{files[0]} is a LoRA of diffusers or kohya, whose names say where it belongs only beside a model: in "
                "Python, eckart.load_adapter(model, FILE), and eckart.save_adapter or eckart.save_peft of what comes"
            )
        raise Refused(f"{source} has no {ADAPTER}, nor PEFT's adapter_config.json: it is no adapter")
    contents = read_json(source / ADAPTER)
    if contents.get("format") != FORMAT or not isinstance(contents.get("matrices"), dict):
        raise Refused(
            f"{source / ADAPTER} is of format {contents.get('format')!r} and was written by eckart "
            f"{contents.get('eckart', '?')}; this is eckart {__version__}, which reads format {FORMAT}"
        )
    stated = str(source / ADAPTER)
    if CHECKSUMS in contents:
        check_seal(_described(contents), contents.get(SEAL), stated)
    found: dict[str, Parts] = {}
    expected: dict[str, Tensor] = {}
    for where, entry in contents["matrices"].items():
        try:
            found[where] = _parts(where, entry)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Refused(f"{stated}: the entry of {abridged(where)} is damaged: {abridged(error, 400)}") from error
        for part, structure in _structures(found[where]).items():
            expected |= {f"{where}/{part}/{leaf}": value for leaf, value in structure.state_dict().items()}
    entries = read_headers([source / TENSORS])
    own = {name: entry for name, entry in entries.items() if not name.startswith(KEPT)}
    check_entries(own, expected, stated)
    check_checksums(entries, contents.get(CHECKSUMS), stated)
    for where, parts in found.items():
        for part, structure in _structures(parts).items():
            check_stored(structure, entries, f"{where}/{part}/")
    return contents, found


def files_of_others(source: Path) -> list[Path]:
    """The files of a directory that are LoRAs under the names that diffusers and kohya give to layers."""
    files = (file for file in source.iterdir() if file.suffix.lower() == ".safetensors") if source.is_dir() else ()
    return [file for file in sorted(files) if any(map(_OF_OTHERS.search, read_headers([file])))]


def _structures(parts: Parts) -> dict[str, StructuredMatrix]:
    named = {part: getattr(parts, part) for part in _PARTS}
    return {part: structure for part, structure in named.items() if structure is not None}


def _parts(where: str, entry: Any) -> Parts:
    """What the JSON says of one matrix, its structures on the meta device; what it says otherwise is checked."""
    structures: dict[str, Any] = {part: from_spec(entry[part], where) for part in _PARTS if part in entry}
    shapes = {structure.shape for structure in structures.values()}
    if len(shapes) > 1:
        raise Refused(f"its parts have the shapes {', '.join(map(str, shapes))}")
    leaves = dict(structures["path"].named_parameters())
    if unknown := [leaf for leaf in entry["trains"] if leaf not in leaves]:
        raise Refused(f"what trains, {abridged(unknown[0])}, is none of {abridged(list(leaves), 200)}")
    size_option("an adapter", "rank", entry["rank"])
    pairs: dict[str, Any] = {
        own: _pair(entry[p]) for p, own in (("kernel", "patch"), ("dilation", "dilation")) if p in entry
    }
    flags: dict[str, Any] = {
        word: flag_option("an adapter", word, entry.get(word, False)) for word in ("whole", "line")
    }
    return Parts(**structures, **pairs, **flags)


def _pair(entry: Any) -> Pair:
    first, second = (size_option("an adapter", "patch", n) for n in entry)
    return first, second


def put_in(
    adapter: Adapter,
    starts: dict[str, Parts],
    trains: dict[str, list[str]] | None = None,
) -> None:
    """Enters the parts of each matrix into the model of an adapter that has no places yet.

    Raises:
        Refused: the model lacks a matrix or has one of another shape, or has an adapter of that name.
    """
    model = adapter.model
    check_name(adapter.name)
    with apart(model) as packed:
        bases = find_bases(model, head=True)
        for where, parts in starts.items():
            if where not in bases:
                raise Refused(f"the adapter is for {where}, which {type(model).__name__} does not have as a linear map")
            module = bases[where]
            shape = module.shape if isinstance(module, Adapted) else matrix_shape(module)
            for word, own, there in ("shape", parts.path.shape, shape), ("patches", parts.patch, patch_of(module)):
                if own != there:
                    raise Refused(
                        f"the adapter of {where} has {word} {own}; in this {type(model).__name__} it is {there}"
                    )
            if parts.taken is not None or parts.frozen is not None:
                check_unshared(model, where, base_of(module))
            if isinstance(module, Adapted) and adapter.name in module.paths:
                raise Refused(f"{where} has an adapter {adapter.name!r} already: remove it or choose another name")
        with switched_off(model):
            pass
        model.requires_grad_(False)
        for where, parts in starts.items():
            module = bases[where]
            place = adapter.places[where] = module if isinstance(module, Adapted) else Adapted(module)
            if place is not module:
                set_module(model, where, place)
            if trains is not None:
                for leaf, parameter in parts.path.named_parameters():
                    parameter.requires_grad_(leaf in trains[where])
            place.add(adapter.name, Start(parts.path, False, parts.frozen, whole=parts.whole), parts.taken)
    adapter.packed = packed
    adapter.activate()
