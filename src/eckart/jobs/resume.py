"""What an interrupted run leaves, and going on from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from eckart.compressors.contract import Fitted
from eckart.errors import Refused
from eckart.files.tensors import write_safetensors
from eckart.models.checkpoint import read_json
from eckart.structures import from_spec
from eckart.structures.shared import bind, locate

STATE = "job.json"
SITES = "sites"


def check_resume(partial: Path, request: Mapping[str, Any], resume: bool) -> None:
    """Raises Refused where an interrupted run is in the way, or was another one than is to be resumed.

    Args:
        partial: where the work in progress is.
        request: what is asked for, as JSON; `inputs` names the weights and the calibration text as they are now.
        resume: whether to go on with it.
    """
    if not partial.exists():
        return
    if not resume:
        raise Refused(f"{partial} holds an interrupted run: go on with --resume, or remove it to start again")
    if not (partial / STATE).is_file():
        return
    earlier, current = _flat(read_json(partial / STATE)), _flat(json.loads(json.dumps(request)))
    for part, wanted in current.items():
        if earlier.get(part) == wanted:
            continue
        if part == "inputs":
            raise Refused(
                f"the weights or the calibration text have changed since the run in {partial} was interrupted: "
                "remove it to start again"
            )
        raise Refused(
            f"the run in {partial} was for {part}={earlier.get(part)!r}, not {part}={wanted!r}: "
            "repeat its options, or remove it to start again"
        )


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a request and of the mappings in it."""
    flat: dict[str, Any] = {}
    for name, value in request.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat


def clear(partial: Path) -> None:
    """Removes all but the state and the finished sites: a file that was being written when the run ended is no use."""
    for path in partial.iterdir():
        if path.is_dir() and path.name != SITES:
            shutil.rmtree(path)
        elif path.is_file() and path.name != STATE:
            path.unlink()


class DirectoryStore:
    """Finished groups of sites as files, each whole or absent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, name: str, size: int) -> list[Fitted] | None:
        file = self.directory / f"{name}.safetensors"
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as opened:
                entry = json.loads((opened.metadata() or {})["group"])
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            if entry["size"] != size:
                return None
            biases = {key: tensors.pop(key) for key in list(tensors) if key.endswith(".bias") and key.count(".") == 1}
            structures = {str(i): from_spec(spec, f"{name}[{i}]") for i, spec in enumerate(entry["structures"])}
            bind(structures)
            nn.ModuleDict(structures).load_state_dict(tensors, assign=True)
            for structure in structures.values():
                structure.check_values()
            fitted = zip(structures.items(), entry["errors"], strict=True)
            return [Fitted(structure, biases.get(f"{i}.bias"), float(error)) for (i, structure), error in fitted]
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
            return None

    def put(self, name: str, size: int, fitted: Sequence[Fitted]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        structures = {str(i): one.structure for i, one in enumerate(fitted)}
        locate(structures)
        tensors = {key: value.contiguous() for key, value in nn.ModuleDict(structures).state_dict().items()}
        tensors |= {f"{i}.bias": one.bias.contiguous() for i, one in enumerate(fitted) if one.bias is not None}
        specs, errors = [structure.spec() for structure in structures.values()], [one.error for one in fitted]
        group = json.dumps({"size": size, "errors": errors, "structures": specs})
        write_safetensors(tensors, self.directory / f"{name}.safetensors", {"group": group})
