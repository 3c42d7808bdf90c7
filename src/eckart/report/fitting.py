"""What `fit.json` says: what a table is, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eckart.report.schema import schema_of
from eckart.report.types import Amount, Count, Fraction, Name


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """The table as it was read.

    Attributes:
        rows: Rows.
        columns: Columns.
        observed: Share of the entries that the file has.
        sparse: Whether only observed entries are held.
    """

    rows: Count
    columns: Count
    observed: Fraction
    sparse: bool


@dataclass(frozen=True, kw_only=True)
class Course:
    """How an iteration went.

    Attributes:
        iterations: Steps.
        converged: Whether what was asked for was reached.
        history: What was watched, step by step.
    """

    iterations: Count
    converged: bool
    history: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An entry that the table has not, and what it would be.

    Attributes:
        row: Name or number of the row.
        column: Name or number of the column.
        value: What is predicted.
    """

    row: str
    column: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Rows of the table as pictures: as they were, as the model has them, and what is left.

    Attributes:
        row: Name or number of the row.
        data: A picture of all three side by side, as a data address.
    """

    row: str
    data: Name


@dataclass(frozen=True, kw_only=True)
class FitSeconds:
    """Wall-clock time of each phase.

    Attributes:
        load: Reading the table.
        fit: Fitting.
        write: Scores, predictions, pictures and files.
    """

    load: Amount
    fit: Amount
    write: Amount


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What eckart fit found in a table.

    Attributes:
        eckart: Version of eckart that wrote the report.
        data: The table as it was named on the command line.
        method: Name and options of the estimator.
        estimator: The estimator with all its options.
        table: The table as it was read.
        error: Norm of what the model leaves of the observed entries by their norm; null where it has no rows to give.
        held_out: Root mean square error of entries that were held back, and of their mean column; null where none were.
        singular_values: Of the model, falling; empty where it has none.
        course: How the iteration went; null where there was none.
        predictions: Some of the largest predictions; all of them are in predictions.csv.
        pictures: Some rows as pictures.
        files: What was written, and what it is.
        peak_rss_bytes: Largest resident set of the process; null where the system does not tell.
        seconds: Wall-clock time of each phase.
        command: Words of the command that repeats the run, but for --out.
        warnings: What a reader of these numbers has to know.
    """

    eckart: Name
    data: Name
    method: Name
    estimator: Name
    table: TableFacts
    error: Amount | None
    held_out: Mapping[str, Amount] | None
    singular_values: Sequence[float]
    course: Course | None
    predictions: Sequence[Prediction]
    pictures: Sequence[Picture]
    files: Mapping[str, str]
    peak_rss_bytes: Count | None
    seconds: FitSeconds
    command: Sequence[str]
    warnings: Sequence[str]


def fitting_schema() -> dict[str, Any]:
    """The JSON Schema of `fit.json`."""
    return schema_of(FitReport, "fit.json of eckart fit")
