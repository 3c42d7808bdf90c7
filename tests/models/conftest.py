"""Compressed models on disk, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import eckart
from eckart.models import transformers as hf
from support.saving import CASES, IDS, base
from support.tiny import tiny_tokenizer


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path]]:
    """Compressed models, and directories that `from_pretrained` is to read. Not to be changed."""
    found = {}
    for name, (kind, options) in CASES.items():
        model = base(kind)
        eckart.compress(model, keep=0.8, of="bytes", calibration=IDS, **options)
        directory = tmp_path_factory.mktemp(name)
        hf.write_model(model, tiny_tokenizer(), directory)
        found[name] = model, directory
    return found
