"""What an estimator makes of a table, as files that other programs read, and as pictures."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import power_of_two
from eckart.errors import Refused
from eckart.files.tables import Table
from eckart.report.fitting import Picture, Prediction

SHOWN = 20
"""Predictions in the report."""
PICTURES = 6
PAIRS = 2_000_000
"""Predictions at a time."""


class Outputs:
    """Files in a directory, and what the report says of them.

    Args:
        directory: where they go.
        table: what was read.
        estimator: fitted.
        picture: HEIGHTxWIDTH of the rows, or "".
        top: predictions for each row.

    Attributes:
        files: what was written, by name.
        error: what the model leaves of the observed entries, by their norm.
        predictions, pictures: for the report.

    Raises:
        Refused: `picture` is no size of the rows, or Pillow is missing.
    """

    def __init__(self, directory: Path, table: Table, estimator: Any, picture: str, top: int) -> None:
        self.directory, self.table, self.estimator, self.top = directory, table, estimator, top
        self.size = size_of(picture, table.values.shape[1]) if picture else None
        self.files: dict[str, str] = {}
        self.error: float | None = None
        self.predictions: list[Prediction] = []
        self.pictures: list[Picture] = []

    def write(self, learned: Any) -> None:
        """Writes everything that the estimator gives, from the table that it learned."""
        scores = np.asarray(self.estimator.transform(learned))
        names = [str(name) for name in self.estimator.get_feature_names_out()]
        self._csv(
            "scores.csv", ["", *names], ([self._row(at), *row] for at, row in enumerate(scores)), "rows in the model"
        )
        parts = getattr(self.estimator, "components_", None)
        if isinstance(parts, np.ndarray) and parts.shape[1:] == self.table.values.shape[1:]:
            columns = [self._column(at) for at in range(parts.shape[1])]
            rows = ([f"component {at}", *row] for at, row in enumerate(parts))
            self._csv(
                "components.csv", ["", *columns], rows, "what scores are multiplied with; of a kernel its landmarks"
            )
        for name, words in {"low_rank_": "the part of low rank", "sparse_": "the part of few entries"}.items():
            part = getattr(self.estimator, name, None)
            if isinstance(part, np.ndarray):
                file = f"{name.rstrip('_')}.npy"
                np.save(self.directory / file, part, allow_pickle=False)
                self.files[file] = words
        if hasattr(self.estimator, "inverse_transform") and not sparse.issparse(learned):
            made = reconstructed(self.estimator, scores)
            seen = ~np.isnan(learned)
            unit = power_of_two(learned[seen])
            norm = float(np.linalg.norm(learned[seen] / unit))
            self.error = float(np.linalg.norm((learned - made)[seen] / unit)) / norm if norm else 0.0
            if self.size:
                low = getattr(self.estimator, "low_rank_", made)
                self.pictures = [self._picture(at, learned, low) for at in chosen(len(learned))]
        if completes(self.estimator):
            self._predict(learned)

    def _predict(self, learned: Any) -> None:
        """The largest predictions of entries that were not observed, some for each row."""
        best: list[Prediction] = []

        def rows() -> Iterator[list[Any]]:
            for at, column, value in unobserved(self.estimator, learned, self.top):
                best.append(Prediction(row=self._row(at), column=self._column(column), value=value))
                yield [self._row(at), self._column(column), value]

        words = f"the {self.top} largest predictions of each row that the table has not"
        self._csv("predictions.csv", ["row", "column", "value"], rows(), words)
        self.predictions = sorted(best, key=lambda each: -each.value)[:SHOWN]

    def _csv(self, name: str, header: Sequence[str], rows: Any, words: str) -> None:
        with (self.directory / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        self.files[name] = words

    def _row(self, at: int) -> str:
        return self.table.rows[at] if self.table.rows else str(at)

    def _column(self, at: int) -> str:
        return self.table.columns[at] if self.table.columns else str(at)

    def _picture(self, at: int, learned: Any, made: Any) -> Picture:
        """The row, the model's, and around grey its few other entries, or the difference, side by side on one scale."""
        assert self.size is not None
        low, high = np.nanmin(learned), np.nanmax(learned)
        span = (high - low) or 1.0
        row = np.where(np.isnan(learned[at]), made[at], learned[at])
        few = self.estimator.sparse_[at] if hasattr(self.estimator, "sparse_") else row - made[at]
        parts = [(row - low) / span, (made[at] - low) / span, 0.5 + few / span]
        shown = np.hstack([np.clip(part, 0, 1).reshape(self.size) for part in parts])
        return Picture(row=self._row(at), data=png((shown * 255).round().astype(np.uint8)))


def completes(estimator: Any) -> bool:
    """Whether it predicts entries of the table by row and column."""
    return hasattr(estimator, "predict_entries")


def reconstructed(estimator: Any, scores: Any) -> Any:
    """Rows of the table from their scores."""
    return np.asarray(estimator.inverse_transform(scores))


def chosen(rows: int) -> list[int]:
    """Some rows, evenly spaced."""
    return sorted({round(at) for at in np.linspace(0, rows - 1, min(rows, PICTURES))})


def unobserved(estimator: Any, learned: Any, top: int) -> Iterator[tuple[int, int, float]]:
    """Row, column and value of the largest predictions of each row that the table has not."""
    rows, columns = learned.shape
    step = max(1, PAIRS // columns)
    for begin in range(0, rows, step):
        block = learned[begin : begin + step]
        seen = observed_in(block)
        places = np.repeat(np.arange(begin, begin + len(seen)), columns), np.tile(np.arange(columns), len(seen))
        values = np.asarray(estimator.predict_entries(*places)).reshape(seen.shape)
        values[seen] = -np.inf
        order = np.argsort(-values, axis=1, kind="stable")[:, :top]
        for at, row in enumerate(order):
            for column in row[np.isfinite(values[at, row])]:
                yield begin + at, int(column), float(values[at, column])


def observed_in(block: Any) -> Any:
    """Which entries of some rows were observed."""
    if not sparse.issparse(block):
        return ~np.isnan(block)
    listed, seen = sparse.coo_array(block), np.zeros(block.shape, bool)
    seen[listed.coords] = True
    return seen


def size_of(picture: str, columns: int) -> tuple[int, int]:
    """Height and width; Refused where the rows are no such pictures."""
    found = re.fullmatch(r"(\d+)x(\d+)", picture)
    if not found or int(found[1]) * int(found[2]) != columns:
        raise Refused(f"picture={picture!r} is no HEIGHTxWIDTH of rows of {columns} numbers")
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise Refused("pictures are written by Pillow: pip install 'eckart[media]'") from None
    return int(found[1]), int(found[2])


def png(grey: Any) -> str:
    """Bytes (height, width) as the data address of a picture."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
