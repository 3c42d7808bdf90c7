"""Fitted estimators in one file: arrays as safetensors, the rest as JSON in its header; no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eckart._version import __version__
from eckart.errors import Refused
from eckart.estimators.contract import ESTIMATORS
from eckart.files.checksums import check_seal, seal
from eckart.files.tensors import read_safetensors, sealed, write_safetensors

CONTENTS, SEAL = "eckart_estimator", "eckart_seal"
PLAIN = (bool, int, float, str, type(None))


def save(estimator: Any, path: str | Path) -> None:
    """Writes a fitted estimator, or one that is not fitted yet, to one file, whole or not at all.

    Args:
        estimator: of `eckart.estimators.ESTIMATORS`.
        path: a file; replaced if it exists.

    Raises:
        Refused: it is no estimator of eckart, or holds what is neither arrays nor plain values, as a function.
        OSError: the disk is full, or the directory cannot be written.
    """
    name = next((card.name for card in ESTIMATORS.values() if card.entry is type(estimator)), None)
    if name is None:
        raise Refused(f"{type(estimator).__name__} is no estimator of eckart: there are {', '.join(ESTIMATORS)}")
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for key, value in vars(estimator).items():
        values[key] = _stored(f"{name}.{key}", key, value, tensors)
    contents = {"eckart": __version__, "estimator": name, "values": values}
    text = json.dumps(contents, ensure_ascii=False)
    write_safetensors(tensors, Path(path), {CONTENTS: text, SEAL: seal(json.loads(text)), **sealed(tensors)})


def load(path: str | Path) -> Any:
    """The estimator that `save` wrote.

    Raises:
        Refused: the file is damaged, of another program, or of an estimator that is not here.
    """
    tensors, header = read_safetensors(Path(path))
    if CONTENTS not in header:
        raise Refused(f"{path} holds tensors, and no estimator of eckart")
    contents = json.loads(header[CONTENTS])
    check_seal(contents, header.get(SEAL), str(path))
    kind: Any = ESTIMATORS.find(contents["estimator"]).entry
    made = kind.__new__(kind)
    for key, value in contents["values"].items():
        setattr(made, key, _loaded(key, value, tensors))
    return made


def _stored(where: str, key: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A value as JSON; arrays go to the tensors under their key, and leave their kind."""
    if isinstance(value, np.generic):
        return {"number": value.dtype.str, "is": value.item()}
    if isinstance(value, PLAIN):
        return {"is": value}
    if isinstance(value, tuple | list):
        kind = type(value).__name__
        return {kind: [_stored(where, f"{key}.{at}", each, tensors) for at, each in enumerate(value)]}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _stored(where, f"{key}.{name}", each, tensors) for name, each in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU" and all(isinstance(text, str) for text in value.flat):
        return {"texts": value.tolist(), "dtype": "object" if value.dtype.kind == "O" else value.dtype.str}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        tensors[key] = torch.from_numpy(np.array(value, order="C"))
        return {"array": key}
    raise Refused(f"{where} is a {type(value).__name__}, which a file of numbers and text cannot hold")


def _loaded(key: str, value: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    if "number" in value:
        return np.dtype(value["number"]).type(value["is"])
    if "array" in value:
        return tensors[value["array"]].numpy().copy()
    if "texts" in value:
        return np.array(value["texts"], dtype=value["dtype"])
    if "dict" in value:
        return {name: _loaded(name, each, tensors) for name, each in value["dict"].items()}
    for kind in (tuple, list):
        if kind.__name__ in value:
            return kind(_loaded(key, each, tensors) for each in value[kind.__name__])
    return value["is"]
