"""Records of what models read besides running text: pairs, labelled texts, images, sounds and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eckart.errors import Refused
from eckart.texts.examples import records_of

SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    "sound": (".wav",),
}
"""Endings of the files in a folder, by what is in them."""


@dataclass(frozen=True)
class Record:
    """One sample.

    Attributes:
        where: file and line it is from.
        text, response, image, sound: what is to be read, what is to be answered, and files.
        label: name or number of its class.
    """

    where: str
    text: str | None = None
    response: str | None = None
    image: Path | None = None
    sound: Path | None = None
    label: str | int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def contents(self) -> dict[str, object]:
        """All of it but where it is from, files as their bytes."""
        said: dict[str, object] = {"text": self.text, "response": self.response, "label": self.label}
        return said | {file.name: file.read_bytes() for file in (self.image, self.sound) if file is not None}

    @property
    def _content(self) -> tuple[object, ...]:
        return self.text, self.response, self.image, self.sound


def holds_records(source: str) -> bool:
    """Whether a name is that of a folder or of a file of JSON lines, not of a text."""
    return os.path.isdir(source) or Path(source).suffix.lower() == ".jsonl"


def read_records(source: str | Path, reads: Sequence[str]) -> list[Record]:
    """Records that hold all that a model reads.

    Args:
        source: a `.jsonl` file with an object a line: `text` or `prompt`, `response`, `image` and `audio` (files, named
            from where the `.jsonl` is), `label`; or a folder of images or `.wav` files, those of a class in a folder
            of its name, with what is said in or of each, if known, in a `.txt` file beside it.
        reads: text, image, sound.

    Raises:
        Refused: no such file, a line that cannot be read, or one that lacks what is to be read.
    """
    path = Path(source)
    found = list(_folder(path, reads) if path.is_dir() else _lines(path))
    if not found:
        endings = ", ".join(ending for kind in reads for ending in SUFFIXES.get(kind, ()))
        raise Refused(f"{path} holds nothing to read" + f": no file ends with {endings}" * path.is_dir())
    for record in found:
        if lacking := [name for name in reads if getattr(record, name) is None]:
            raise Refused(f"{record.where}: there is no {' and no '.join(lacking)}, which the model reads")
    return found


def _folder(path: Path, reads: Sequence[str]) -> Iterator[Record]:
    kinds = [kind for kind in reads if kind in SUFFIXES]
    if not kinds:
        raise Refused(f"{path} is a directory, and the model reads {' and '.join(reads)}: name a file")
    for file in sorted(path.rglob("*")):
        kind = next((kind for kind in kinds if file.suffix.lower() in SUFFIXES[kind]), None)
        if kind is None or not file.is_file():
            continue
        beside = file.with_suffix(".txt")
        said = beside.read_text("utf-8-sig").strip() if beside.is_file() else None
        files: dict[str, Any] = {kind: file}
        label = file.parent.name if file.parent != path else None
        yield Record(str(file), text=said, response=said, label=label, **files)


def _lines(path: Path) -> Iterator[Record]:
    if path.suffix.lower() != ".jsonl":
        raise Refused(
            f"{path} does not say what belongs together: name a .jsonl file with an object a line, or a folder"
        )
    for number, line in records_of(path):
        where = f"{path}, line {number}"
        words = {key: line.get(key) for key in ("text", "prompt", "response", "image", "audio")}
        for key, value in words.items():
            if value is not None and not isinstance(value, str):
                raise Refused(f"{where}: {key!r} is no string: {str(value)[:60]!r}")
        label = line.get("label")
        if label is not None and (isinstance(label, bool) or not isinstance(label, str | int)):
            raise Refused(f"{where}: label {str(label)[:60]!r} is neither the name nor the number of a class")
        files = {key: path.parent / name for key in ("image", "audio") if (name := words[key])}
        yield Record(
            where,
            words["prompt"] if words["text"] is None else words["text"],
            words["response"],
            files.get("image"),
            files.get("audio"),
            label,
        )


def picked(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """At most `count` records, drawn without preference for a class, in the order in which they stand."""
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))[:count]
    return [records[i] for i in sorted(order.tolist())]
