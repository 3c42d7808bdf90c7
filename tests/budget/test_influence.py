"""The allocation that takes less from blocks that change much."""

from __future__ import annotations

import numpy as np

from eckart.budget import Candidates, allocate
from eckart.budget.influence import TEMPERATURE


def test_allocation_by_influence_is_a_softmax() -> None:
    costs, errors = np.arange(1.0, 1001), np.linspace(1, 0, 1000)
    influences = [0.05, 0.1, 0.2, 0.15]
    sites = [Candidates(costs, errors, influence=s) for s in influences]
    softmax = np.exp(-np.array(influences) / TEMPERATURE)
    softmax /= softmax.sum()
    for keep in (0.6, 0.8, 0.9):
        choice = allocate(sites, keep * 4000, "influence", floor=0)
        lost = [1 - costs[i] / 1000 for i in choice]
        assert sum(costs[i] for i in choice) <= keep * 4000
        assert np.allclose(lost, 4 * (1 - keep) * softmax, atol=2e-3)


def test_what_is_not_known_loses_what_the_mean_does() -> None:
    costs, errors = np.arange(1.0, 1001), np.linspace(1, 0, 1000)
    known = [Candidates(costs, errors, influence=s) for s in (0.1, 0.3)]
    unknown, mean = Candidates(costs, errors), Candidates(costs, errors, influence=0.2)
    assert allocate([*known, unknown], 2000, "influence") == allocate([*known, mean], 2000, "influence")
    alike = [Candidates(costs, errors) for _ in range(3)]
    assert allocate(alike, 1500, "influence") == allocate(alike, 1500, "uniform")
