"""Rows of matrices: who is asked, what is said where there is nothing to say, and what is computed once."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from eckart.diagnostics.contract import columns_of
from eckart.jobs.diagnose import rows
from eckart.jobs.diagnose.rows import changed, matrix_row
from support import hard


def test_a_matrix_has_the_columns_of_all_that_look_at_matrices() -> None:
    w = hard.normal(80, 60)
    row = matrix_row(w, w, 60)
    assert set(row) == {"shape", "notes", *columns_of("matrix", "eigenvalues", "windows")}
    assert row["shape"] == [80, 60]
    assert not row["notes"]
    without = matrix_row(w, w, None)
    assert set(row) - set(without) == set(columns_of("windows"))
    assert not without["notes"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_a_matrix_without_a_spectrum(value: float) -> None:
    w = hard.normal(8, 6)
    w[1, 2] = value
    row = matrix_row(w, w, None)
    assert set(row) == {"shape", "notes"}
    assert len(row["notes"]) == 1


def test_one_reason_for_all_that_is_missing_of_nothing() -> None:
    row = matrix_row(torch.zeros(60, 70), torch.zeros(60, 70), 60)
    assert row["notes"] == ["all entries are zero"]
    assert (row["N"], row["norm"], row["stable_rank"]) == (70, 0, None)
    assert "alpha" not in row


def test_a_density_has_no_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "spectrum", partial(rows.spectrum, exact=10))
    w = hard.normal(80, 60)
    row = matrix_row(w, w, None)
    assert row["notes"] == [
        "too large for all singular values: columns of the density are estimates, others are left out"
    ]
    assert not row["exact"]
    assert row["mp_spikes"] == 0
    assert "alpha" not in row


def test_singular_vectors_of_a_change_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, svd = [], torch.linalg.svd

    def counted(matrix: Tensor, *, full_matrices: bool = True) -> object:
        seen.append(matrix)
        return svd(matrix, full_matrices=full_matrices)

    monkeypatch.setattr(torch.linalg, "svd", counted)
    numbers, notes = changed(hard.normal(20, 30), hard.normal(20, 30, seed=1))
    assert set(numbers) == set(columns_of("change"))
    assert not notes
    assert len(seen) == 2
