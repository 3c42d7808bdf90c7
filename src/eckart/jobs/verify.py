"""The job of `eckart verify`: whether a directory still holds what was written into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from eckart.errors import Refused, abridged
from eckart.files.checksums import check_seal, differences
from eckart.files.headers import Entry, read_headers
from eckart.files.json import read_json
from eckart.files.tensors import CHECKSUMS, SEAL
from eckart.jobs.adapt.files import ADAPTER, TENSORS, read_adapter
from eckart.jobs.adapt.peft import CONFIG, WEIGHTS
from eckart.jobs.evaluate.speed import weight_bytes
from eckart.models.checkpoint import MANIFEST, check_manifest, weight_files
from eckart.models.tensor_checks import check_files, described
from eckart.models.transformers import METHOD, check_loads

REPORTS = ("report.json", "training.json", "compensation.json", "diagnosis.json")


@dataclass
class Verified:
    """What was found in a directory.

    Attributes:
        directory: its name.
        tensors: how many have the checksums that they were written with.
        unsealed: how many were written without; of those, names, dtypes, shapes and indices were checked.
        reports: files of jobs that could be read.
        problems: what is wrong, a sentence each.
    """

    directory: str
    tensors: int = 0
    unsealed: int = 0
    reports: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(directory: str | Path) -> Verified:
    """Holds every tensor of a directory to its checksum, and the files beside it to what they must be.

    Args:
        directory: of a compressed model, of what `eckart.save` wrote, of an adapter, or of a job with its report.

    Raises:
        Refused: there is no such directory, or nothing in it that eckart wrote.
    """
    source = Path(directory)
    if not str(directory).strip() or not source.is_dir():
        raise Refused(f"there is no directory {str(directory)!r}")
    found = Verified(str(source))
    reports = [name for name in REPORTS if (source / name).exists()]
    for part, check in (ADAPTER, _adapter), (CONFIG, _peft), (MANIFEST, _module), ("config.json", _model):
        if (source / part).exists():
            try:
                check(source, found)
            except Refused as error:
                found.problems.append(str(error))
    if not (found.tensors or found.unsealed or found.problems or reports):
        raise Refused(f"{source} holds nothing that eckart wrote with checksums or a report")
    for name in reports:
        try:
            _report(source / name, found)
        except Refused as error:
            found.problems.append(str(error))
    return found


def _adapter(source: Path, found: Verified) -> None:
    contents = read_json(source / ADAPTER)
    if not _sums(read_headers([source / TENSORS]), contents.get(CHECKSUMS), str(source / ADAPTER), found):
        read_adapter(source)


def _peft(source: Path, found: Verified) -> None:
    file = source / WEIGHTS
    entries = read_headers([file])
    with safe_open(file, "pt") as opened:
        stated = (opened.metadata() or {}).get(CHECKSUMS)
    read_json(source / CONFIG)
    try:
        _sums(entries, None if stated is None else json.loads(stated), f"the header of {file}", found)
    except ValueError as error:
        raise Refused(f"the header of {file} is damaged: {error}") from error


def _module(source: Path, found: Verified) -> None:
    _manifest(source, read_json(source / MANIFEST), source / MANIFEST, found)


def _model(source: Path, found: Verified) -> None:
    entry = read_json(source / "config.json").get("quantization_config", {})
    if not isinstance(entry, Mapping):
        raise Refused(f"{source / 'config.json'}: the quantization_config is an object, not {abridged(entry)}")
    if entry.get("quant_method") == METHOD:
        files = read_headers(weight_files(source))
        if not _sums(files, entry.get(CHECKSUMS), str(source / "config.json"), found):
            check_loads(source)


def _manifest(source: Path, entry: dict[str, Any], where: Path, found: Verified) -> None:
    check_manifest(entry, str(where))
    files = weight_files(source)
    entries = read_headers(files)
    sealed = SEAL in entry or CHECKSUMS in entry
    if _sums(entries, entry.pop(CHECKSUMS, None), str(where), found):
        return
    if sealed:
        check_seal(described(entry), entry.get(SEAL), str(where))
    # Without the model, every name may be one of its own.
    known = {name: torch.empty(held.shape, device="meta") for name, held in entries.items()}
    check_files(files, entry, str(where), known)


def _sums(entries: Mapping[str, Entry], stated: object, where: str, found: Verified) -> int:
    """Counts tensors, enters what differs, and returns how much that is."""
    wrong = list(differences(entries, stated, where))
    found.problems += wrong
    if stated is None:
        found.unsealed += len(entries)
    elif not wrong:
        found.tensors += len(entries)
    return len(wrong)


def _report(file: Path, found: Verified) -> None:
    contents = read_json(file)
    if not isinstance(contents.get("eckart"), str):
        raise Refused(f"{file} is no report of eckart")
    size = contents.get("size")
    stated = size.get("bytes") if isinstance(size, Mapping) else None
    if file.name == "report.json" and isinstance(stated, Mapping):
        tensors = weight_bytes(file.parent)
        whole = sum(weights.stat().st_size for weights in file.parent.glob("*.safetensors"))
        if stated.get("after") not in (tensors, whole):  # 0.1.0 counted the headers of the files too
            raise Refused(
                f"{file} says that the weights take {abridged(stated.get('after'))} bytes, and they take {tensors}"
            )
    found.reports.append(file.name)
