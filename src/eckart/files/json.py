"""JSON in files: read as an object or refused, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from eckart.errors import Refused


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; Refused that names the file where it is not one."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Refused(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refused(f"{file} does not hold a JSON object")
    return value


def write_json(value: object, file: Path) -> None:
    """Writes JSON so that the file is either the old one or the whole new one."""
    temporary = file.with_name(file.name + ".tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False), "utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
