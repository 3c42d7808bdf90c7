"""Least absolute deviations against a linear program."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from eckart.linalg.least_absolute import least_absolute_scores


def test_scores_are_those_of_a_linear_program() -> None:
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((12, 3)))[0]
    x = rng.standard_normal((1, 12))
    seen = np.ones_like(x, bool)
    seen[0, 4] = False
    scores = least_absolute_scores(x, seen, basis)
    kept, target = basis[seen[0]], x[0, seen[0]]
    n = len(kept)
    bounds = [(None, None)] * 3 + [(0, None)] * n
    constraints = np.block([[kept, -np.eye(n)], [-kept, -np.eye(n)]])
    best = linprog(np.r_[np.zeros(3), np.ones(n)], constraints, np.r_[target, -target], bounds=bounds).fun
    assert np.abs(target - kept @ scores[0]).sum() == pytest.approx(best, rel=1e-3)
