"""Writes a report to disk and sums it up for the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from eckart.report.html import render, to_json

_UNITS = ("", "k", "M", "G", "T")


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `report.json` follows."""
    loaded: dict[str, Any] = json.loads(files("eckart.report").joinpath("schema.json").read_text(encoding="utf-8"))
    return loaded


def write_report(report: Mapping[str, Any], directory: Path) -> None:
    """Writes `report.json` and `report.html`, each whole or not at all.

    Both texts are made before either file is touched; a file appears under its name only when it is complete.

    Args:
        report: the report; see `schema`.
        directory: where to write; made if it does not exist.

    Raises:
        ValueError: where a number is not finite; the text names its place, as in `report.sites[3].error`.
        TypeError: where a value is not JSON.
        OSError: where a file cannot be written; an older report is then still there.
    """
    texts = {"report.json": to_json(report, indent=1) + "\n", "report.html": render(report)}
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        _replace(directory / name, text)


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


def summary_table(report: Mapping[str, Any]) -> Table:
    """Before and after, a row for each thing measured; rows that were not measured are left out."""
    title = Text(f"{report['model']}, method {report['method']}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)

    def row(
        name: str,
        before: float,
        after: float,
        show: Callable[[float], str],
        errors: tuple[str, str] = ("", ""),
        ratio: float | None = None,
    ) -> None:
        change = _change(before, after) if ratio is None else _change(1, ratio)
        cells = (name, show(before) + errors[0], show(after) + errors[1], change)
        table.add_row(*(Text(cell) for cell in cells))

    for name, pair in report["size"].items():
        row(name.replace("_", " "), pair["before"], pair["after"], _bytes if name == "bytes" else _count)
    if quality := report.get("quality"):
        before, after = quality["before"], quality["after"]
        row(quality["metric"], before["mean"], after["mean"], _number, (_plus_minus(before), _plus_minus(after)))
    speed = report.get("speed") or {}
    for phase in ("prefill", "decode"):
        if pair := speed.get(f"{phase}_tokens_per_second"):
            row(f"{phase} tokens/s", pair["before"], pair["after"], _number, ratio=speed.get(f"{phase}_ratio"))
    return table


def training_table(report: Mapping[str, Any]) -> Table:
    """What a `training.json` says of the model before and after."""
    title = Text(
        f"{report['model']}, {report['method']} of rank {report['rank']}, {_count(report['parameters'])} trained"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    if validation := report["validation"]:
        best = min(validation, key=lambda each: float(each["loss"]))
        table.add_row(
            "validation loss", _number(validation[0]["loss"]), f"{_number(best['loss'])} (step {best['step']})"
        )
    if forgetting := report["forgetting"]:
        cells = [_number(forgetting[when]["perplexity"]) for when in ("before", "after")]
        table.add_row(f"perplexity of {forgetting['text']}", *cells)
    return table


def compensation_table(report: Mapping[str, Any]) -> Table:
    """What a `compensation.json` says of the dense, the compressed and the compensated model, a row for each thing."""
    title = Text(f"{report['model']}, rank {report['rank']}, metric {report['metric']}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    states = ("dense", "before", "after")
    for heading in states:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, show in (("parameters", _count), ("bytes", _bytes)):
        table.add_row(name, *(show(report["size"][state][name]) for state in states))
    if quality := report["quality"]:
        for name in ("perplexity", "kl"):
            values = [quality[state].get(name) for state in states]
            table.add_row(name, *("" if value is None else _number(value) for value in values))
    return table


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _count(value: float) -> str:
    unit = 0
    while abs(value) >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.2f} {_UNITS[unit]}" if unit else f"{value:.0f}"


def _bytes(value: float) -> str:
    text = _count(value)
    return f"{text}B" if " " in text else f"{text} B"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.1f}"


def _plus_minus(value: Mapping[str, float | None]) -> str:
    stderr = value.get("stderr")
    return "" if stderr is None else f" ± {stderr:.2g}"


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}" if before else ""
