"""What benchmarks measured of each method; `results.json` is written by `benchmarks/cards.py` from their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def measured(kind: str) -> Mapping[str, Any]:
    """`title`, under which conditions, and `rows`, for each name its results in words.

    Args:
        kind: "methods" or "adapters".
    """
    found: Mapping[str, Any] = json.loads(files("eckart.methods").joinpath("results.json").read_text("utf-8"))[kind]
    return found


def results(kind: str, name: str) -> list[str]:
    """What was measured of a method, a line each; nothing where it was not."""
    rows: list[str] = measured(kind)["rows"].get(name, [])
    return rows
