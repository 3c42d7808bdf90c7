"""Adapters from disk, in eckart's form or in that of PEFT."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import load_own
from eckart.jobs.adapt.from_peft import load_peft
from eckart.jobs.adapt.peft import CONFIG


def load_adapter(model: nn.Module, directory: str | os.PathLike[str], *, name: str | None = None) -> Adapter:
    """Puts a saved adapter beside the linear maps of a model, in place, and makes it the active one.

    Args:
        model: the model that it was trained on, or another with matrices of the same names and shapes.
        directory: what `save_adapter` wrote, or an adapter of PEFT of the type LoRA.
        name: instead of its own.

    Raises:
        Refused: no adapter there, damaged files, a model that lacks a matrix or has one of another shape, or a name
            that is taken; nothing is changed then.
    """
    source = Path(directory)
    if (source / CONFIG).is_file():
        return load_peft(model, source, name=name or "default")
    return load_own(model, source, name)
