"""Exponents of tails: known ones, and against a plain loop over all cut-offs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eckart.diagnostics._tails import LEAST, hill
from eckart.diagnostics.power_law import fit_power_law, tail
from eckart.errors import Refused
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


def test_weightwatchers_numbers_written_out() -> None:
    values = pareto(300, 2.5)
    w = hard.with_spectrum(300, 400, values.sqrt())
    numbers = tail(spectrum(w))
    alpha, xmin, distance, count = by_loop(values)
    x = np.sort(values.numpy())
    assert numbers["alpha"] == pytest.approx(alpha)
    assert (numbers["xmin"], numbers["xmax"]) == (pytest.approx(xmin), pytest.approx(x[-1]))
    assert (numbers["D"], numbers["num_pl_spikes"]) == (pytest.approx(distance), count)
    assert numbers["sigma"] == pytest.approx((alpha - 1) / math.sqrt(count))
    assert numbers["alpha_weighted"] == pytest.approx(alpha * math.log10(x[-1]))
    assert numbers["log_alpha_norm"] == pytest.approx(math.log10((x**alpha).sum()))
    upper = x[150:]
    assert numbers["alpha_hill"] == pytest.approx(1 + 1 / np.log(upper / upper[0]).mean())


@pytest.mark.parametrize(("alpha", "warning"), [(1.5, "over-trained"), (4.0, ""), (9.0, "under-trained")])
def test_warning(alpha: float, warning: str) -> None:
    assert tail(spectrum(pareto(400, alpha).sqrt().diag()))["warning"] == warning


def test_bad_input() -> None:
    with pytest.raises(Refused, match=f"needs {LEAST} values that are not zero, there are 49"):
        fit_power_law(torch.ones(49))
    for fit in (fit_power_law, hill):
        with pytest.raises(Refused, match="all values are equal"):
            fit(torch.full((60,), 3.0))
        with pytest.raises(Refused, match="positive"):
            fit(torch.linspace(0, 1, 60))
        with pytest.raises(Refused, match="positive"):
            fit(torch.linspace(1, math.inf, 60))
