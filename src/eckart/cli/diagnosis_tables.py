"""A diagnosis for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from eckart.diagnostics.contract import MATRIX_SUBJECTS, Column, columns_of


def diagnosis_tables(report: Mapping[str, Any]) -> list[Table]:
    """Spectra, extremes, changes if there was a model to compare with, hidden states, and what sizes cost as measured.

    Spectra and changes are means over the matrices of a kind: those whose names differ in numbers only.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["matrices"]:
        kinds.setdefault(re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", row["name"]), []).append(row)
    spectra = columns_of(*(subject for subject in MATRIX_SUBJECTS if subject != "change"))
    tables = [_means(report["model"], kinds, spectra), _extremes(report)]
    if report["against"]:
        tables.append(_means(f"{report['model']} against {report['against']}", kinds, columns_of("change")))
    if report["hidden_states"]:
        tables.append(_hidden_states(report))
    if report["measured"]:
        tables.append(_measured(report))
    return tables


def _means(title: str, kinds: Mapping[str, Sequence[Mapping[str, Any]]], columns: Mapping[str, Column]) -> Table:
    shown = {name: column for name, column in columns.items() if column.short}
    table = Table(title=Text(title), title_justify="left")
    table.add_column("matrices", overflow="fold")
    table.add_column("", justify="right")
    for column in shown.values():
        table.add_column(column.short, justify="right", no_wrap=True)
    for kind, rows in kinds.items():
        table.add_row(Text(kind), str(len(rows)), *(_cell(name, rows) for name in shown))
    return table


def _extremes(report: Mapping[str, Any]) -> Table:
    """The matrices that have the least and the most of a number."""
    rows = [{**row, "half": _half(row.get("curve"))} for row in report["matrices"]]
    columns = columns_of(*MATRIX_SUBJECTS)
    headings = {name: column.heading(name) for name, column in columns.items() if column.extremes}
    table = Table(title=Text(f"matrices of {report['model']}"), title_justify="left")
    table.add_column("")
    table.add_column("least, most", justify="right", no_wrap=True)
    table.add_column("of", overflow="fold")
    for name, heading in (headings | {"half": "rise if cut in half"}).items():
        ranked = sorted((row for row in rows if row.get(name) is not None), key=lambda row: float(row[name]))
        if ranked:
            for row, first in ((ranked[0], heading), (ranked[-1], "")):
                table.add_row(first, f"{row[name]:.3g}", Text(row["name"]))
    return table


def _half(curve: Mapping[str, Sequence[float]] | None) -> float | None:
    """What a curve predicts at the largest size that is at most half of the matrix."""
    if curve is None:
        return None
    sizes = list(zip(curve["parameters"], curve["predicted_kl"], strict=True))
    small = [size for size in sizes if 2 * size[0] <= sizes[-1][0]]
    return max(small)[1] if small else None


def _hidden_states(report: Mapping[str, Any]) -> Table:
    table = Table(title=Text(f"hidden states on {report['text']['name']}"), title_justify="left")
    columns = columns_of("hidden states")
    for heading in ("layer", *(column.short or column.heading(name) for name, column in columns.items())):
        table.add_column(heading, justify="right")
    for row in report["hidden_states"]:
        table.add_row(str(row["layer"]), *(f"{row[name]:.3f}" for name in columns))
    return table


def _measured(report: Mapping[str, Any]) -> Table:
    tokens = report["measured"][0]["tokens"]
    title = f"rise of the loss, on {tokens} tokens held back"
    table = Table(title=Text(title), title_justify="left")
    for heading in ("kept", "predicted", "measured", "ratio", "perplexity"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report["measured"]:
        predicted, kl = row["predicted_kl"], row["kl"]
        ratio = f"{kl / predicted:.2f}" if predicted > 0 else ""
        before, after = row["perplexity"]["before"], row["perplexity"]["after"]
        table.add_row(f"{row['keep']:.1%}", f"{predicted:.3g}", f"{kl:.3g}", ratio, f"{before:.2f} to {after:.2f}")
    return table


def _cell(column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    values = [float(row[column]) for row in rows if row.get(column) is not None]
    if not values:
        return ""
    mean = sum(values) / len(values)
    return f"{mean:.3g}" if abs(mean) < 100 else f"{mean:.0f}"
