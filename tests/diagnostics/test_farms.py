"""Exponents of tails: known ones, against a plain loop, and at several shapes of a matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eckart.budget import Candidates, allocate
from eckart.budget.farms import EPSILON
from eckart.diagnostics.farms import LEAST, common_window, farms, fit_power_law, hill, window_eigenvalues
from eckart.linalg.spectrum import spectrum
from support import hard


def pareto(n: int, alpha: float, seed: int = 0) -> Tensor:
    """n values of density ~ x^-alpha above 1."""
    u = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1 - u) ** (-1 / (alpha - 1))


def by_loop(values: Tensor) -> tuple[float, float, float, int]:
    """(alpha, xmin, D, tail) of the cut-off of the least distance, one after the other."""
    x = np.sort(values.numpy())
    best = (math.inf, 0.0, 0.0, 0)
    for i in range(len(x) - 1):
        tail = x[i:]
        n = len(tail)
        total = np.log(tail / tail[0]).sum()
        if not total > 0:
            continue
        alpha = 1 + n / total
        distance = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(n) / n).max()
        if distance < best[0]:
            best = (distance, alpha, x[i], n)
    return best[1], best[2], best[0], best[3]


@pytest.mark.parametrize("n", [50, 51, 200, 777])
@pytest.mark.parametrize("kind", ["pareto", "lognormal", "noise", "bulk and tail", "ties"])
def test_fit_is_that_of_a_loop_over_all_cut_offs(n: int, kind: str) -> None:
    values = {
        "pareto": pareto(n, 2.5),
        "lognormal": hard.normal(n).exp(),
        "noise": torch.linalg.svdvals(hard.normal(n, n)).square() + 1e-9,
        "bulk and tail": torch.cat([hard.normal(n - n // 4).abs() + 0.1, 3 * pareto(n // 4, 3.0)]),
        "ties": pareto(n, 2.0).round(),
    }[kind]
    found = fit_power_law(values)
    alpha, xmin, distance, count = by_loop(values)
    assert found.distance == pytest.approx(distance, abs=1e-12)
    assert (found.alpha, found.xmin, found.count) == (pytest.approx(alpha), pytest.approx(xmin), count)
    assert found.sigma == pytest.approx((alpha - 1) / math.sqrt(count))


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.5, 6.0])
@pytest.mark.parametrize("shape", [(400, 400), (400, 800), (600, 400)])
def test_known_exponents(alpha: float, shape: tuple[int, int]) -> None:
    w = hard.with_spectrum(*shape, pareto(400, alpha, seed=1).sqrt())
    values = spectrum(w).positive
    found = fit_power_law(values)
    assert abs(found.alpha - alpha) < 4 * found.sigma
    # The upper half of a Pareto sample is one of the same exponent.
    assert abs(hill(values) - alpha) < 4 * (alpha - 1) / math.sqrt(200)
    assert fit_power_law(1e6 * values).alpha == pytest.approx(found.alpha)


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
    kernel = hard.normal(60, 80, 9).reshape(60, 80, 3, 3)
    slices = [window_eigenvalues(kernel[:, :, i, j], (60, 60)) for i in range(3) for j in range(3)]
    torch.testing.assert_close(window_eigenvalues(kernel, (60, 60)), torch.cat(slices).sort().values)
    assert farms(kernel, (60, 60)) == pytest.approx(hill(torch.cat(slices)))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=f"needs {LEAST} values that are not zero, there are 49"):
        fit_power_law(torch.ones(49))
    for fit in (fit_power_law, hill):
        with pytest.raises(ValueError, match="all values are equal"):
            fit(torch.full((60,), 3.0))
        with pytest.raises(ValueError, match="positive"):
            fit(torch.linspace(0, 1, 60))
        with pytest.raises(ValueError, match="positive"):
            fit(torch.linspace(1, math.inf, 60))
    with pytest.raises(ValueError, match="10 x 25 has no windows of 11 x 11"):
        window_eigenvalues(hard.normal(25, 10), (11, 11))
    with pytest.raises(ValueError, match="NaN"):
        farms(torch.full((60, 60), math.nan), (50, 50))
    with pytest.raises(ValueError, match="there are 0"):
        farms(torch.zeros(60, 60), (50, 50))


def test_common_window() -> None:
    assert common_window([(300, 100), (80, 90), (2, 900)]) == 80
    assert common_window([(3000, 1000)]) == 512
    assert common_window([(10, 1000)]) is None


def test_allocation_by_tails_is_linear_in_the_exponent() -> None:
    costs, errors = np.arange(1.0, 1001), np.linspace(1, 0, 1000)
    tails = [2.0, 3.0, 4.0, None]
    sites = [Candidates(costs, errors, tail=tail) for tail in tails]
    for keep in (0.5, 0.7, 0.9):
        choice = allocate(sites, keep * 4000, "farms", floor=0)
        lost = [1 - costs[i] / 1000 for i in choice]
        assert sum(costs[i] for i in choice) <= keep * 4000
        assert np.allclose(lost, (1 - keep) * np.array([1 - EPSILON, 1, 1 + EPSILON, 1]), atol=2e-3)
    alike = [Candidates(costs, errors, tail=2.0) for _ in range(3)]
    assert allocate(alike, 1500, "farms") == allocate(alike, 1500, "uniform")
