"""How far matrices moved, against norms and angles computed anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eckart.diagnostics.contract import Change
from eckart.diagnostics.movement import movement, overlap
from eckart.errors import Refused
from support import hard


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rank_of_a_difference_sees_through_rounding(dtype: torch.dtype) -> None:
    base = hard.normal(96, 128).to(dtype)
    tuned = (base.double() + 3 * hard.normal(96, 4, seed=1) @ hard.normal(4, 128, seed=2)).to(dtype)
    row = movement(Change(base, tuned))
    assert row["difference_rank"] == 4
    difference = (tuned.double() - base.double()).numpy()
    assert row["moved"] == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(base.double().numpy()))
    assert row["difference_norm"] == pytest.approx(np.linalg.norm(difference))


def test_nothing_moved() -> None:
    w = hard.normal(30, 20)
    row = movement(Change(w, w.clone()))
    assert row["moved"] == row["difference_rank"] == row["difference_in_base"] == 0
    assert row["overlap_left"] == pytest.approx(1)


def test_principal_angles() -> None:
    angle = torch.tensor([0.2, 1.0]).double()
    a = torch.eye(5).double()[:, :2]
    b = torch.zeros(5, 2).double()
    b[0, 0], b[1, 1], b[2, 0], b[3, 1] = angle[0].cos(), angle[1].cos(), angle[0].sin(), angle[1].sin()
    torch.testing.assert_close(overlap(a, b @ hard.orthogonal(2)), angle.cos())
    scaled = hard.with_spectrum(30, 40, torch.linspace(5, 1, 30).double())
    assert movement(Change(scaled, 3 * scaled))["difference_in_base"] == pytest.approx(
        float(torch.linspace(5, 1, 30)[:10].square().sum() / torch.linspace(5, 1, 30).square().sum())
    )


def test_columns_written_out() -> None:
    base, tuned = hard.normal(30, 24), hard.normal(30, 24) + 0.3 * hard.normal(30, 24, seed=1)
    row = movement(Change(base, tuned))
    (u, s, vt), (new_u, _, new_vt) = (np.linalg.svd(w.numpy(), full_matrices=False) for w in (base, tuned))
    difference = (tuned - base).numpy()
    values = np.linalg.svd(difference, compute_uv=False)
    p = values / values.sum()
    size = (difference**2).sum()
    assert row["moved_spectral"] == pytest.approx(values[0] / s[0])
    assert row["difference_stable_rank"] == pytest.approx(size / values[0] ** 2)
    assert row["difference_effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    left, right = (a[:, :10] @ a[:, :10].T for a in (u, vt.T))
    assert row["difference_in_base"] == pytest.approx(((left @ difference @ right) ** 2).sum() / size)
    # The squared cosines of the angles between two spans sum to the trace of the product of their projections.
    for column, kept, new in (("overlap_left", left, new_u), ("overlap_right", right, new_vt.T)):
        assert row[column] == pytest.approx(np.trace(kept @ new[:, :10] @ new[:, :10].T) / 10)


def test_matrices_that_do_not_compare() -> None:
    w = hard.normal(6, 5)
    for base, tuned, message in (
        (w, w.T, r"\(6, 5\) does not go with \(5, 6\)"),
        (w, w * math.nan, "NaN"),
        (torch.zeros(6, 5), w, "zero matrix"),
    ):
        with pytest.raises(Refused, match=message):
            Change(base, tuned)
