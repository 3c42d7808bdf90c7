"""Writes a report to disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eckart.files.atomic import replacing
from eckart.report.html import render, to_json


def write_report(report: Mapping[str, object], directory: Path, name: str = "report.json") -> None:
    """Writes a report and `report.html`, each whole or not at all.

    Both texts are made before either file is touched; a file appears under its name only when it is complete.

    Args:
        report: the report; see `schema`.
        directory: where to write; made if it does not exist.
        name: of the file of numbers.

    Raises:
        ValueError: where a number is not finite; the text names its place, as in `report.sites[3].error`.
        TypeError: where a value is not JSON.
        OSError: where a file cannot be written; an older report is then still there.
    """
    texts = {name: to_json(report, indent=1) + "\n", "report.html": render(report)}
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        _replace(directory / file, text)


def decimate(values: Sequence[float], limit: int) -> list[float]:
    """At most `limit` of the values at evenly spaced positions, the first and the last among them.

    Curves (33) and spectra (64) are shortened like this; the page puts a spectrum's values back at these positions.

    Args:
        values: at least one number.
        limit: at least 2.

    Raises:
        ValueError: where `limit` is below 2.

    >>> decimate(range(101), 5)
    [0.0, 25.0, 50.0, 75.0, 100.0]
    """
    if limit < 2:
        raise ValueError(f"decimate keeps the first and the last value, so limit must be at least 2, got {limit}")
    last = len(values) - 1
    if last < limit:
        return [float(value) for value in values]
    return [float(values[round(i * last / (limit - 1))]) for i in range(limit)]


def _replace(path: Path, text: str) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
