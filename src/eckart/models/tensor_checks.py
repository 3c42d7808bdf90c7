"""Whether files hold just what a manifest says, found out before any of it is put into a model."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from eckart.errors import Refused, abridged
from eckart.files.checksums import check_checksums, check_seal
from eckart.files.headers import DTYPES, Entry, read_headers
from eckart.files.tensors import CHECKSUMS, SEAL
from eckart.structures import StructuredMatrix, from_spec

STRUCTURE = ".structure."
"""In the name of a tensor, between the name of its module and its name in the structure."""


def check_files(files: Sequence[Path], manifest: Mapping[str, Any], where: str, known: Mapping[str, Tensor]) -> None:
    """Raises Refused unless files hold each tensor that a manifest names, with its dtype and shape, and no other.

    The values are checked too: their checksums, if the manifest has any, and what only values can tell, such as an
    index out of range. So nothing is left to be found where tensors are loaded later, or to a disk.

    Args:
        files: safetensors.
        manifest: from JSON; its modules have been checked by `check_manifest`.
        where: its name, for messages.
        known: the tensors of the model that has the structured modules in place; it may call them otherwise.
    """
    if CHECKSUMS in manifest:
        check_seal(described(manifest), manifest.get(SEAL), where)
    entries = read_headers(files)
    modules: Mapping[str, Mapping[str, Any]] = manifest["modules"]
    owned = _by_module(entries, modules)
    for name, module in modules.items():
        held = owned.get(name, {})
        _check_module(name, module, held, where)
        for key, entry in held.items():
            if key in known and tuple(known[key].shape) != entry.shape:
                raise Refused(f"{key}: {entry.file} holds shape {entry.shape}, not {tuple(known[key].shape)}")
    for key in entries:
        module_name, separator, _ = key.partition(STRUCTURE)
        if separator and module_name not in modules and key not in known:
            raise Refused(f"{entries[key].file} holds {key}, and {where} has no entry of {module_name}")
    check_checksums(entries, manifest.get(CHECKSUMS), where)


def described(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What of a manifest is sealed: all by which a model is rebuilt."""
    return {key: manifest[key] for key in ("format", "modules", "unfused") if key in manifest}


def check_entries(entries: Mapping[str, Entry], expected: Mapping[str, Tensor], where: str) -> None:
    """Raises Refused unless there are entries of just these names, shapes and dtypes.

    Args:
        entries: of files.
        expected: tensors, on any device.
        where: what says so, for messages.
    """
    for name, tensor in expected.items():
        if name not in entries:
            raise Refused(f"the checkpoint lacks {name}, of shape {tuple(tensor.shape)}, which {where} names")
        found = entries[name]
        if found.shape != tuple(tensor.shape):
            raise Refused(f"{name}: {found.file} holds shape {found.shape}, not {tuple(tensor.shape)} as {where} says")
        if DTYPES.get(found.dtype) != tensor.dtype:
            raise Refused(f"{name}: {found.file} holds {found.dtype}, not {tensor.dtype} as {where} says")
    for name, found in entries.items():
        if name not in expected:
            raise Refused(f"{found.file} holds {name}, which {where} does not name")


def check_stored(structure: StructuredMatrix, entries: Mapping[str, Entry], prefix: str) -> None:
    """Raises Refused where the values of a structure in files are impossible, such as an index out of range.

    Args:
        structure: on the meta device; given the tensors of the files, mapped.
        entries: of files, in which its tensors are.
        prefix: of their names.
    """
    values: dict[str, Tensor] = {}
    for name in structure.state_dict():
        with safe_open(entries[prefix + name].file, "pt") as opened:
            values[name] = opened.get_tensor(prefix + name)
    structure.load_state_dict(values, assign=True)
    structure.check_values()


def _by_module(entries: Mapping[str, Entry], modules: Container[str]) -> dict[str, dict[str, Entry]]:
    """The entries of tensors that belong to modules, by module and name."""
    found: dict[str, dict[str, Entry]] = {}
    for key, entry in entries.items():
        parts = key.split(".")
        for end in range(1, len(parts)):
            name = ".".join(parts[:end])
            if name in modules:
                found.setdefault(name, {})[key] = entry
    return found


def _check_module(name: str, module: Mapping[str, Any], entries: Mapping[str, Entry], where: str) -> None:
    kind = str(module.get("module"))
    bias = module.get("bias", False)
    if not isinstance(bias, bool):
        raise Refused(f"{where}: the bias of {name} is true or false, not {abridged(bias)}")
    bias_key = f"{name}.bias"
    expected: dict[str, Tensor] = {}
    structure: StructuredMatrix | None = None
    if not kind.startswith("tied"):
        structure = from_spec(module.get("structure", {}), name)
        expected = {f"{name}{STRUCTURE}{leaf}": tensor for leaf, tensor in structure.state_dict().items()}
    held = {key: entry for key, entry in entries.items() if key != bias_key}
    check_entries(held, expected, f"the entry of {name} in {where}")
    if bias != (bias_key in entries):
        says, holds = ("a bias", "has none") if bias else ("no bias", "holds one")
        raise Refused(f"{name}: {where} says that it has {says}, and the checkpoint {holds}")
    if structure is not None:
        try:
            check_stored(structure, entries, f"{name}{STRUCTURE}")
        except Refused as error:
            raise Refused(f"{name}: {error}") from error
