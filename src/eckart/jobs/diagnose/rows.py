"""What is said of one matrix: a row of numbers, and notes on those that there cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from eckart.diagnostics.contract import MATRIX_SUBJECTS, Change, Matrix, Windows, diagnostics_of, look
from eckart.errors import Refused
from eckart.linalg.spectrum import spectrum


def matrix_row(weight: Tensor, filters: Tensor, window: int | None, *, seed: int = 0) -> dict[str, Any]:
    """Everything that the diagnostics say of one matrix.

    Args:
        weight: W (out, in).
        filters: the same, or the filters of a convolution (out, in, height, width).
        window: side of square windows; None for none.
        seed: of whatever is drawn.

    Returns:
        Numbers by column, None where there is none, and `notes`, which say why.
    """
    row: dict[str, Any] = {"shape": list(weight.shape)}
    try:
        s = spectrum(weight, seed=seed)
    except Refused as error:
        return row | {"notes": [str(error)]}
    subjects: dict[str, object] = {"matrix": Matrix(weight, s, seed)}
    if s.exact:
        subjects["eigenvalues"] = s
    if window is not None:
        subjects["windows"] = Windows(filters, window)
    numbers, notes = looked_at(subjects)
    # Of nothing there is little to say, and one reason for all that is missing.
    return row | {"notes": notes if s.largest > 0 else ["all entries are zero"]} | numbers


def changed(base: Tensor, tuned: Tensor) -> tuple[dict[str, Any], list[str]]:
    """Everything that the diagnostics say of a change of one matrix, and notes."""
    try:
        change = Change(base, tuned)
    except Refused as error:
        return {}, [f"not compared: {error}"]
    return looked_at({"change": change})


def looked_at(subjects: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """The numbers of all diagnostics of what there is, and their notes."""
    row: dict[str, Any] = {}
    notes: list[str] = []
    for card in diagnostics_of(*(subject for subject in MATRIX_SUBJECTS if subject in subjects)):
        numbers, said = look(card, subjects[card.of])
        row |= numbers
        notes += said
    return row, notes
