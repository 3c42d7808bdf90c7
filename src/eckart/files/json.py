"""JSON in files: read as an object or refused, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eckart.errors import Refused
from eckart.files.atomic import replacing
from eckart.files.regular import regular


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; Refused that names the file where it is not one."""
    try:
        value = json.loads(regular(file).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refused(f"{file} does not hold a JSON object")
    return value


def write_json(value: object, file: Path, *, new: bool = False) -> None:
    """Writes JSON so that the file is either the old one or the whole new one; `new` as in `replacing`."""
    with replacing(file, new=new) as temporary:
        temporary.write_text(json.dumps(value, indent=1, allow_nan=False), "utf-8")
