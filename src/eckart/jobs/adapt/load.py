"""Adapters from disk, in eckart's form or in that of PEFT, diffusers or kohya."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from eckart.errors import Refused
from eckart.files.json import read_json
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import ADAPTER, TRAINING, files_of_others, load_own
from eckart.jobs.adapt.from_diffusers import load_lora
from eckart.jobs.adapt.from_peft import load_peft
from eckart.jobs.adapt.peft import CONFIG


def load_adapter(
    model: nn.Module, directory: str | os.PathLike[str], *, name: str | None = None, part: str | None = None
) -> Adapter:
    """Puts a saved adapter beside the linear maps of a model, in place, and makes it the active one.

    Args:
        model: the model that it was trained on, or another with matrices of the same names and shapes.
        directory: what `save_adapter` wrote, an adapter of PEFT of the type LoRA, or a LoRA of diffusers or kohya: a
            safetensors file, or the directory of one.
        name: instead of its own.
        part: of a file of diffusers or kohya that is for several models, the word that begins the names for this one,
            such as "unet" or "te2"; None where the names of the layers tell.

    Raises:
        Refused: no adapter there, damaged files, a model that lacks a matrix or has one of another shape, or a name
            that is taken; nothing is changed then.
    """
    source = Path(directory)
    others = [source] if source.is_file() else []
    if not others and not any((source / file).is_file() for file in (CONFIG, ADAPTER)):
        others = files_of_others(source)
    if len(others) > 1:
        raise Refused(f"{source} has several LoRAs, {', '.join(file.name for file in others)}: name one of the files")
    if others:
        return load_lora(model, others[0], name=name or "default", part=part)
    if part is not None:
        raise Refused(f"part={part!r} is for files of diffusers and kohya, and {source} holds an adapter for one model")
    if (source / CONFIG).is_file():
        return load_peft(model, source, name=name or "default")
    return load_own(model, source, name)


def is_adapter(directory: str | os.PathLike[str]) -> bool:
    """Whether a directory holds an adapter, of eckart or of PEFT, and no model."""
    path = Path(directory)
    return not (path / "config.json").is_file() and any((path / file).is_file() for file in (ADAPTER, CONFIG))


def base_of_directory(directory: str | os.PathLike[str]) -> str:
    """The model that an adapter was trained on, as its directory names it.

    Raises:
        Refused: it names none.
    """
    for file, word in ((TRAINING, "model"), (CONFIG, "base_model_name_or_path")):
        path = Path(directory) / file
        named = read_json(path).get(word) if path.is_file() else None
        if isinstance(named, str) and named:
            return named
    raise Refused(
        f"{directory} is an adapter and does not name the model that it is for: in Python, load the model and call "
        "eckart.load_adapter(model, DIR); merge() and remove() of what that gives put it into the matrices for good"
    )
