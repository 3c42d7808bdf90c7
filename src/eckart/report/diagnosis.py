"""A diagnosis for the terminal, and the schema of `diagnosis.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from rich.table import Table
from rich.text import Text

COLUMNS = {
    "alpha": "alpha",
    "alpha_farms": "alpha\nfarms",
    "stable_rank": "stable\nrank",
    "effective_rank": "effective\nrank",
    "rank_90": "rank at\n90 %",
    "mp_spikes": "spikes",
    "moved": "moved",
    "difference_rank": "rank of\nchange",
    "overlap_left": "overlap",
    "intruders": "intruders",
}
"""What the table shows of the matrices of a kind: a mean over them."""


def diagnosis_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `diagnosis.json` follows."""
    text = files("eckart.report").joinpath("diagnosis.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def diagnosis_table(report: Mapping[str, Any]) -> Table:
    """Means over the matrices of a kind, whose names differ in numbers only; columns that none has are left out."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["matrices"]:
        kinds.setdefault(re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", row["name"]), []).append(row)
    shown = [column for column in COLUMNS if any(column in row for row in report["matrices"])]
    title = report["model"] + (f" against {report['against']}" if report["against"] else "")
    table = Table(title=Text(title), title_justify="left")
    table.add_column("matrices")
    table.add_column("", justify="right")
    for column in shown:
        table.add_column(COLUMNS[column], justify="right", no_wrap=True)
    for kind, rows in kinds.items():
        table.add_row(Text(kind), str(len(rows)), *(_cell(column, rows) for column in shown))
    return table


def hidden_state_table(report: Mapping[str, Any]) -> Table:
    """The measures of the hidden states, a row for each layer."""
    table = Table(title=Text(f"hidden states on {report['text']['name']}"), title_justify="left")
    for heading in ("layer", "matrix nuclear norm", "nuclear norm", "matrix entropy"):
        table.add_column(heading, justify="right")
    for row in report["hidden_states"]:
        values = (row["matrix_nuclear_norm"], row["nuclear_norm"], row["matrix_entropy"])
        table.add_row(str(row["layer"]), *(f"{value:.3f}" for value in values))
    return table


def _cell(column: str, rows: Sequence[Mapping[str, Any]]) -> str:
    values = [float(row[column]) for row in rows if row.get(column) is not None]
    if not values:
        return ""
    mean = sum(values) / len(values)
    return f"{mean:.3g}" if abs(mean) < 100 else f"{mean:.0f}"
