"""Directories of sentence-transformers: a transformer, how its outputs become one vector a text, and what follows."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.files.json import read_json

MODULES = "modules.json"
_OWN = (MODULES, "config_sentence_transformers.json", "sentence_bert_config.json")
_OLD = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How modes of pooling are called in directories of before 2026."""


@dataclass(frozen=True)
class Sentences:
    """What a directory holds beside its transformer.

    Attributes:
        directory: the whole.
        transformer: the part that transformers reads, from there.
        modes: of pooling, as sentence-transformers calls them; empty where there is none that is known here.
        parts: folders of all other parts.
    """

    directory: Path
    transformer: str
    modes: tuple[str, ...]
    parts: tuple[str, ...]

    def embedding(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """One vector of length 1 a text, before what may come after pooling.

        Args:
            hidden: (texts, tokens, width).
            mask: (texts, tokens), zero where there is padding.
        """
        kept = mask[..., None].to(hidden.dtype)
        rows = torch.arange(len(hidden))
        pooled = {
            "cls": lambda: hidden[rows, mask.long().argmax(1)],
            "lasttoken": lambda: hidden[rows, mask.shape[1] - 1 - mask.long().flip(1).argmax(1)],
            "max": lambda: hidden.masked_fill(kept == 0, -torch.inf).amax(1),
            "mean": lambda: (hidden * kept).sum(1) / kept.sum(1).clamp_min(1),
        }
        return torch.nn.functional.normalize(torch.cat([pooled[mode]() for mode in self.modes], 1), dim=1)

    def copy(self, out: Path) -> None:
        """Puts all but the transformer beside one that was written into a directory."""
        for name in _OWN:
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, out / name)
        if self.transformer and (self.directory / self.transformer / _OWN[2]).is_file():
            shutil.copyfile(self.directory / self.transformer / _OWN[2], out / _OWN[2])
        for part in self.parts:
            if (self.directory / part).is_dir():
                shutil.copytree(self.directory / part, out / part, dirs_exist_ok=True)
        modules: Any = json.loads((self.directory / MODULES).read_text("utf-8"))
        for module in modules:
            module["path"] = "" if module["path"] == self.transformer else module["path"]
        (out / MODULES).write_text(json.dumps(modules, indent=2) + "\n", "utf-8")


def sentences_in(directory: Path) -> Sentences | None:
    """What `modules.json` says of a directory; None where there is none.

    Raises:
        Refused: it is damaged, leads out of the directory, or names no transformer.
    """
    file = directory / MODULES
    if not file.is_file():
        return None
    try:
        modules = [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in json.loads(file.read_text("utf-8"))]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(f"{file} does not say what the model is made of: {error}") from error
    for _, path in modules:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise Refused(f"{file} names a part outside of the directory: {path!r}")
    found = [path for kind, path in modules if kind == "Transformer"]
    if len(found) != 1:
        raise Refused(f"{file} names {len(found)} transformers, and one is read here")
    pooling = next((directory / path / "config.json" for kind, path in modules if kind == "Pooling"), None)
    modes = _modes(read_json(pooling)) if pooling is not None and pooling.is_file() else ()
    return Sentences(directory, found[0], modes, tuple(path for kind, path in modules if path and path != found[0]))


def _modes(config: dict[str, Any]) -> tuple[str, ...]:
    said = config.get("pooling_mode")
    modes = [said] if isinstance(said, str) else said or [mode for key, mode in _OLD.items() if config.get(key)]
    return tuple(modes) if set(modes) <= set(_OLD.values()) else ()
