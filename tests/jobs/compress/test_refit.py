"""Weights that are corrected for inputs that compression changed."""

from __future__ import annotations

import pytest
import torch

from eckart.jobs.compress.refit import corrected_weight
from support import hard


def test_corrected_weight_solves_its_least_squares_problem() -> None:
    weight, x = hard.normal(5, 8), hard.normal(60, 8, seed=1)
    z = x @ (torch.eye(8).double() + 0.2 * hard.normal(8, 8, seed=2)) + 0.1 * hard.normal(60, 8, seed=3)
    moment, ridge = z.T @ z / 60, 0.05
    s = ridge * moment.trace() / 8
    # argmin |W x - V z|^2 / n + s |V - W|^2 as one stacked least-squares problem in V^T.
    a = torch.cat([z / 60**0.5, s.sqrt() * torch.eye(8).double()])
    b = torch.cat([x @ weight.T / 60**0.5, s.sqrt() * weight.T])
    expected = torch.linalg.lstsq(a, b).solution.T
    got = corrected_weight(weight, x.T @ z / 60, moment, ridge)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", hard.second_moments(6))
def test_corrected_weight_of_unchanged_inputs_is_the_weight(name: str) -> None:
    weight, moment = hard.normal(4, 6), hard.second_moments(6)[name]
    torch.testing.assert_close(corrected_weight(weight, moment, moment), weight, rtol=1e-8, atol=1e-8)


def test_corrected_weight_tends_to_the_weight_with_the_ridge() -> None:
    weight, cross, z = hard.normal(4, 6), hard.normal(6, 6, seed=1), hard.normal(30, 6, seed=2)
    distances = [float((corrected_weight(weight, cross, z.T @ z / 30, r) - weight).norm()) for r in (0.01, 1, 100, 1e6)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_corrected_weight_refuses_what_is_not_finite(value: float) -> None:
    good, bad = torch.eye(3).double(), torch.eye(3).double()
    bad[0, 0] = value
    for cross, moment in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="NaN or Inf"):
            corrected_weight(hard.normal(2, 3), cross, moment)
