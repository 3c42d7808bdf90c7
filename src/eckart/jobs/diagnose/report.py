"""`diagnosis.json`: what it says of a diagnosis, and its schema, both with the columns that the diagnostics have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eckart._version import __version__
from eckart.diagnostics.contract import MATRIX_SUBJECTS, Column, columns_of, diagnostics_of
from eckart.jobs.diagnose.run import Diagnosis
from eckart.report.diagnosis import Columns, Description, DiagnosisReport, Size, Text
from eckart.report.schema import as_json, schema_of


def as_report(
    found: Diagnosis,
    source: str,
    against: str | None,
    text: str | None,
    tokens: int,
    seed: int,
    seconds: float,
    command: Sequence[str] = (),
    compress: Sequence[str] = (),
) -> dict[str, Any]:
    """A diagnosis as `diagnosis_schema` describes it."""
    report = DiagnosisReport(
        eckart=__version__,
        model=source,
        against=against,
        text=None if text is None else Text(name=text, tokens=tokens),
        seed=seed,
        window=found.window,
        columns=described_columns(against is not None, tokens > 0),
        size=Size(**found.size),
        summary=found.summary,
        matrices=(),
        hidden_states=(),
        warnings=found.warnings,
        coverage=found.coverage,
        seconds=seconds,
        command=command,
        compress=compress,
    )
    # The rows hold the columns of whatever diagnostics there are, which no dataclass names.
    rows = {"matrices": found.rows, "hidden_states": found.hidden_states, "measured": found.measured}
    return as_json(report) | rows


def described_columns(compared: bool, read: bool) -> Columns:
    """What the columns are of a diagnosis with another model, and of one with a text."""
    subjects = (subject for subject in MATRIX_SUBJECTS if compared or subject != "change")
    return Columns(matrices=_described(*subjects), hidden_states=_described(*["hidden states"] * read))


def _described(*subjects: str) -> dict[str, Description]:
    return {
        name: Description(
            diagnostic=card.name,
            title=column.heading(name),
            about=column.about,
            kind=column.kind,
            unit=column.unit,
            place=column.place,
            mean=column.mean,
            extremes=column.extremes,
        )
        for card in diagnostics_of(*subjects)
        for name, column in card.gives.items()
    }


def diagnosis_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every `diagnosis.json` follows."""
    schema = schema_of(DiagnosisReport, "eckart diagnosis")
    rows = {"Matrix": columns_of(*MATRIX_SUBJECTS), "HiddenStates": columns_of("hidden states")}
    for name, columns in rows.items():
        schema["$defs"][name]["properties"] |= {column: _schema(said) for column, said in columns.items()}
    return schema


def _schema(column: Column) -> dict[str, Any]:
    one = {"numbers": "number", "integers": "integer"}.get(column.kind)
    found = {"type": ["array", "null"], "items": {"type": one}} if one else {"type": [column.kind, "null"]}
    return {**found, "description": f"{column.about}."}
