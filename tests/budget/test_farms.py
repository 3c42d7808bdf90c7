"""The allocation that takes less from blocks with heavy tails."""

from __future__ import annotations

import numpy as np

from eckart.budget import Candidates, allocate
from eckart.budget.farms import EPSILON


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
