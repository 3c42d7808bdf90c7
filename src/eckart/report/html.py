"""The report as text: strict JSON, and one HTML page that carries its data, style and script and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from importlib.resources import files

SCRIPTS = (
    "plots.js",
    "data.js",
    "command.js",
    "solve.js",
    "quantities.js",
    "map.js",
    "table.js",
    "detail.js",
    "measured.js",
    "slider.js",
    "runs.js",
    "findings.js",
    "compensated.js",
    "fitted.js",
    "page.js",
)
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def to_json(report: Mapping[str, object], indent: int | None = None) -> str:
    """The report as ASCII JSON in the order of its keys.

    Args:
        report: what a job says of itself, as `as_json` makes it.
        indent: spaces for each level, or None for one line.

    Raises:
        ValueError: where a number is not finite; the text names its place, as in `report.sites[3].error`.
        TypeError: where a value is none of dict, list, tuple, str, int, float, bool and None, or a key is not a string.
    """
    _check(report, "report")
    separators = (",", ":") if indent is None else None
    return json.dumps(report, indent=indent, separators=separators, allow_nan=False)


def render(report: Mapping[str, object]) -> str:
    """A report as one HTML page that needs no network and no other file.

    The page is the same for every job; its parts appear where the report has their data.

    The data travel as JSON in which `<`, `>` and `&` are escaped, so that no name in them can end the script element,
    and the page's own policy lets nothing run or load but the script and style it was built with.

    Args:
        report: what a compression, a compensation, a diagnosis, or the training of an adapter says of itself; see
            `schema_of`.

    Raises:
        ValueError, TypeError: as `to_json`.
    """
    data = re.sub("[<>&]", lambda match: _ESCAPES[match[0]], to_json(report))
    css = _asset("page.css")
    js = "\n".join(_asset(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_hash(js)}'; style-src '{_hash(css)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {"policy": policy, "css": css, "data": data, "js": js}
    return re.sub(r"\{\{(policy|css|data|js)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files("eckart.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression under which a content security policy knows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _check(value: object, path: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value!r}; a report holds finite numbers only: leave the field out or mend it")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {key!r}; keys of a report are strings")
            _check(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif not (value is None or isinstance(value, (str, int))):
        raise TypeError(f"{path} is {value!r} of type {type(value).__name__}; make it a plain number, string or list")
