"""Exponents over windows: where these are, and what they take away."""

from __future__ import annotations

import math

import pytest
import torch

from eckart.diagnostics._tails import hill
from eckart.diagnostics.contract import common_window
from eckart.diagnostics.farms import farms, window_eigenvalues
from eckart.errors import Refused
from eckart.linalg.spectrum import spectrum
from support import hard


def test_windows_take_the_bias_of_the_shape_away() -> None:
    whole, windows = [], []
    for ratio in (1, 2, 4, 8):
        w = hard.normal(128 * ratio, 128, seed=ratio)
        whole.append(hill(spectrum(w).positive))
        windows.append(farms(w, (64, 64)))
    assert whole[-1] > 2 * whole[0]
    assert max(windows) < 1.05 * min(windows)


def test_windows_are_where_they_should_be() -> None:
    w = hard.normal(10, 25)
    cover = window_eigenvalues(w, (10, 10))
    expected = torch.cat([torch.linalg.svdvals(w[:, i : i + 10]).square() for i in (0, 8, 15)]).sort().values
    torch.testing.assert_close(cover, expected)
    torch.testing.assert_close(window_eigenvalues(w.T, (10, 10)), expected)
    torch.testing.assert_close(window_eigenvalues(w, (10, 25)), spectrum(w).values.flip(0))
    one = window_eigenvalues(w, (4, 5), positions=1)
    torch.testing.assert_close(one, torch.linalg.svdvals(w[:4, :5]).square().sort().values)


def test_convolutions_are_a_matrix_at_each_position() -> None:
    filters = hard.normal(60, 80, 9).reshape(60, 80, 3, 3)
    slices = [window_eigenvalues(filters[:, :, i, j], (60, 60)) for i in range(3) for j in range(3)]
    torch.testing.assert_close(window_eigenvalues(filters, (60, 60)), torch.cat(slices).sort().values)
    assert farms(filters, (60, 60)) == pytest.approx(hill(torch.cat(slices)))


def test_bad_input() -> None:
    with pytest.raises(Refused, match="10 x 25 has no windows of 11 x 11"):
        window_eigenvalues(hard.normal(25, 10), (11, 11))
    with pytest.raises(Refused, match="NaN"):
        farms(torch.full((60, 60), math.nan), (50, 50))
    with pytest.raises(Refused, match="there are 0"):
        farms(torch.zeros(60, 60), (50, 50))


def test_common_window() -> None:
    assert common_window([(300, 100), (80, 90), (2, 900)]) == 80
    assert common_window([(3000, 1000)]) == 512
    assert common_window([(10, 1000)]) is None
