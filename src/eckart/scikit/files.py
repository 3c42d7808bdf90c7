"""Fitted estimators in one file: arrays as safetensors, the rest as JSON in its header; no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from eckart._version import __version__
from eckart.errors import Refused
from eckart.files.checksums import check_seal, seal
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.register import Card, register_of

CONTENTS, SEAL = "eckart_estimator", "eckart_seal"
PLAIN = (bool, int, float, str, type(None))
BITS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
"""Sources of random numbers whose state is saved."""
REGISTERS = ("estimators", "kernels", "sketching")
"""Families whose papers are saved."""
_KINDS: dict[str, tuple[type, Callable[[Any], tuple[str, dict[str, Any]]], Callable[[str, dict[str, Any]], Any]]] = {}


def rebuilds(
    kind: str,
    cls: type,
    described: Callable[[Any], tuple[str, dict[str, Any]]],
    made: Callable[[str, dict[str, Any]], Any],
) -> None:
    """Lets files hold objects of a class: by a name and values that files hold, of which they are made again.

    Args:
        kind: what files call such an object.
        cls: its class, and those below it.
        described: an object to its name and values.
        made: a name and values to an object.
    """
    _KINDS[kind] = cls, described, made


def rebuilds_by_attributes(kind: str, cls: Any) -> None:
    """Lets files hold objects of a class that is no more than its attributes. See `rebuilds` for the arguments."""

    def made(_: str, values: dict[str, Any]) -> Any:
        again = cls.__new__(cls)
        vars(again).update(values)
        return again

    rebuilds(kind, cls, lambda held: ("", dict(vars(held))), made)


def _bits(name: str) -> Any:
    if name not in BITS:
        raise Refused(f"the file holds a generator of {name!r:.40} bits: there are {', '.join(BITS)}")
    return getattr(np.random, name)()


def _state_of(generator: np.random.Generator) -> tuple[str, dict[str, Any]]:
    state: dict[str, Any] = dict(generator.bit_generator.state)
    return str(state["bit_generator"]), state


def _generator(name: str, state: dict[str, Any]) -> np.random.Generator:
    bits = _bits(name)
    bits.state = state
    return np.random.Generator(bits)


def _old_state_of(generator: np.random.RandomState) -> tuple[str, dict[str, Any]]:
    state: Any = generator.get_state(legacy=False)
    return str(state["bit_generator"]), dict(state)


def _old_generator(name: str, state: dict[str, Any]) -> np.random.RandomState:
    made = np.random.RandomState(_bits(name))
    made.set_state(state)
    return made


def _rows_of(held: sparse.csr_array) -> tuple[str, dict[str, Any]]:
    return "", {name: getattr(held, name) for name in ("data", "indices", "indptr")} | {"shape": tuple(held.shape)}


def _rows(_: str, values: dict[str, Any]) -> sparse.csr_array:
    return sparse.csr_array((values["data"], values["indices"], values["indptr"]), shape=values["shape"])


rebuilds("sparse_rows", sparse.csr_array, _rows_of, _rows)
rebuilds("generator", np.random.Generator, _state_of, _generator)
rebuilds("random_state", np.random.RandomState, _old_state_of, _old_generator)


def _cards() -> Iterator[Card]:
    """All cards of estimators, those of kernels and of sketches among them."""
    return (card for family in REGISTERS for card in register_of(family).values())


def _kind(card: Card) -> Any:
    """The class of a card's estimator; a function where it has none."""
    return getattr(card, "estimator", None) or card.entry


def save(estimator: Any, path: str | Path) -> None:
    """Writes a fitted estimator, one that is not fitted yet, or a kernel by itself, to one file, whole or not at all.

    Args:
        estimator: of `eckart.estimators`, `eckart.kernels` or `eckart.sketching`; or a kernel, sums and products of
            some among them.
        path: a file; replaced if it exists. A generator among the options is saved where it stands.

    Raises:
        Refused: the directory of `path` is not there, or `path` is one; it is no estimator of eckart, or holds what is
            neither arrays nor plain values, as a function.
        OSError: the disk is full, or the directory cannot be written.
    """
    file = Path(path)
    if not file.parent.is_dir() or file.is_dir():
        where = f"{file} is a directory" if file.is_dir() else f"there is no directory {file.parent}"
        raise Refused(f"{where}: name a file in a directory that is there")
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    if isinstance(estimator, tuple(cls for cls, _, _ in _KINDS.values())):
        _write(file, {"object": _stored(type(estimator).__name__, "object", estimator, tensors)}, tensors)
        return
    name = next((card.name for card in _cards() if _kind(card) is type(estimator)), None)
    if name is None:
        known = ", ".join(card.name for card in _cards() if isinstance(_kind(card), type))
        raise Refused(f"{type(estimator).__name__} is no estimator of eckart: there are {known}")
    for key, value in vars(estimator).items():
        values[key] = _stored(f"{name}.{key}", key, value, tensors)
    _write(file, {"estimator": name, "values": values}, tensors)


def _write(file: Path, contents: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    text = json.dumps({"eckart": __version__, **contents}, ensure_ascii=False)
    write_safetensors(tensors, file, {CONTENTS: text, SEAL: seal(json.loads(text)), **sealed(tensors)})


def load(path: str | Path) -> Any:
    """The estimator or kernel that `save` wrote.

    Raises:
        Refused: the file is damaged, of another program, or of an estimator that is not here.
    """
    tensors, header = read_safetensors(Path(path))
    if CONTENTS not in header:
        raise Refused(f"{path} holds tensors, and no estimator of eckart")
    contents = json.loads(header[CONTENTS])
    check_seal(contents, header.get(SEAL), str(path))
    if "object" in contents:
        return _loaded("object", contents["object"], tensors)
    name = contents["estimator"]
    family = next((family for family in REGISTERS if name in register_of(family)), REGISTERS[0])
    kind = _kind(register_of(family).find(name))
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
    for kind, (cls, described, _) in _KINDS.items():
        if isinstance(value, cls):
            name, values = described(value)
            return {kind: name, "of": _stored(where, key, values, tensors)}
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
    for name, (_, _, made) in _KINDS.items():
        if name in value:
            return made(value[name], _loaded(key, value["of"], tensors))
    for kind in (tuple, list):
        if kind.__name__ in value:
            return kind(_loaded(key, each, tensors) for each in value[kind.__name__])
    return value["is"]
