"""Long systems with a Toeplitz matrix against Levinson's recursion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import solve_toeplitz

from eckart import linalg
from eckart.linalg import toeplitz
from eckart.structures import Toeplitz
from support import hard


@pytest.mark.parametrize("n", [7, 64, 301])
@pytest.mark.parametrize("kind", ["exponential", "smooth", "indefinite", "skewed"])
def test_a_long_one_is_solved_as_a_short_one(n: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = np.arange(n)
    column = {
        "exponential": np.exp(-at / 9),
        "smooth": np.exp(-np.square(at / 5)),  # of condition 1e8 with the shift
        "indefinite": np.cos(at) / (1 + at) - 0.9 * (at == 0),
        "skewed": np.exp(-at / 9),
    }[kind]
    row = column * (1 - 0.1 * (kind == "skewed") * (at > 0))
    shift, b = 1e-7, hard.normal(n, 2)
    matrix = Toeplitz.from_column_and_row(torch.from_numpy(column), torch.from_numpy(row))
    exact = solve_toeplitz((column + shift * (at == 0), row + shift * (at == 0)), b.numpy())
    monkeypatch.setattr(toeplitz, "LONG", 1)
    found = linalg.solve(matrix, b, shift=shift).detach().numpy()
    assert np.linalg.norm(found - exact) <= 1e-6 * np.linalg.norm(exact)
    circulant = toeplitz._nearest_circulant(torch.from_numpy(column + shift * (at == 0)))
    assert (circulant is None) == (kind == "indefinite") or kind == "smooth"


def test_the_circulant_is_the_nearest() -> None:
    column = torch.from_numpy(np.exp(-np.arange(8) / 3))
    dense = torch.from_numpy(np.exp(-np.abs(np.subtract.outer(np.arange(8), np.arange(8))) / 3))
    shifts = [torch.roll(torch.eye(8, dtype=torch.float64), k, 0) for k in range(8)]
    mean = torch.stack([(dense * shift).sum() / 8 for shift in shifts])
    found = toeplitz._nearest_circulant(column)
    assert found is not None
    torch.testing.assert_close(found, torch.fft.rfft(mean).real)
