"""What is known of finished units, in files: the curves of their groups, and what became of their matrices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart._version import __version__
from eckart.errors import Refused
from eckart.files.made import STORED
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.jobs.compress.curves import Curve
from eckart.structures import Cost


def put_record(file: Path, said: Any, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Writes JSON, and tensors beside it, whole or not at all."""
    held = dict(tensors or {}) or {"none": torch.zeros(1)}
    write_safetensors(held, file, {STORED: __version__, "said": json.dumps(said), **sealed(held)})


def record(file: Path) -> tuple[Any, dict[str, Tensor]] | None:
    """What `put_record` wrote; None where it is not there, or damaged."""
    try:
        tensors, metadata = read_safetensors(file)
        return json.loads(metadata["said"]), tensors
    except (Refused, OSError, KeyError, ValueError):
        return None


def put_curves(file: Path, curves: Mapping[str, Curve]) -> None:
    """Writes the curves of groups, by their names."""
    said, spectra = {}, {}
    for name, curve in curves.items():
        entry = {key: value for key, value in vars(curve).items() if key not in ("spectrum", "costs", "known")}
        entry["costs"] = [list(asdict(cost).values()) for cost in curve.costs]
        entry["known"] = None if curve.known is None else sorted(curve.known.items())
        said[name] = entry
        if curve.spectrum is not None:
            spectra[name] = curve.spectrum.contiguous()
    put_record(file, said, spectra)


def curves_in(file: Path) -> dict[str, Curve] | None:
    """What `put_curves` wrote; None where it is not there, or damaged."""
    found = record(file)
    if found is None:
        return None
    curves = {}
    for name, entry in found[0].items():
        costs = [Cost(*cost) for cost in entry.pop("costs")]
        members = [(method, size) for method, size in entry.pop("members")]
        known = entry.pop("known")
        known = None if known is None else dict(known)
        curves[name] = Curve(members=members, costs=costs, known=known, spectrum=found[1].get(name), **entry)
    return curves
