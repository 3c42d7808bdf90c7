"""The robust SVD: its loss by a general optimizer, its limits, backgrounds that stand still."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from eckart.errors import Refused
from eckart.estimators.rsvddpd import RobustSVD, robust_svd, weighted_median_scores


def test_with_alpha_zero_it_is_the_svd() -> None:
    rng = np.random.default_rng(0)
    m = rng.standard_normal((20, 3)) @ np.diag([9.0, 4.0, 1.0]) @ rng.standard_normal((3, 15))
    left, values, right = np.linalg.svd(m, full_matrices=False)
    found, _ = robust_svd(m, 2, 0.0, tolerance=1e-9).value
    np.testing.assert_allclose(found.values, values[:2], rtol=1e-6)
    np.testing.assert_allclose(found.dense(), (left[:, :2] * values[:2]) @ right[:2], atol=1e-5 * values[0])


def test_a_general_optimizer_finds_no_better_fit() -> None:
    rng = np.random.default_rng(1)
    x = 5 + rng.standard_normal((8, 1)) @ rng.standard_normal((1, 6)) + 0.1 * rng.standard_normal((8, 6))
    x[rng.random(x.shape) < 0.1] += 20
    alpha = 0.3
    found, scale = robust_svd(x, 1, alpha, tolerance=1e-10, max_iter=2000).value

    def loss(cd: np.ndarray) -> float:
        rest = x - np.outer(cd[:8], cd[8:])
        return float(-np.expm1(-alpha / 2 * np.square(rest / scale)).sum() / alpha)

    here = np.r_[found.left[:, 0] * found.values[0], found.right[:, 0]]
    assert minimize(loss, here, method="BFGS", tol=1e-10).fun == pytest.approx(loss(here), abs=1e-6)


def test_outliers_on_a_background_that_stands_still_are_not_seen() -> None:
    rng = np.random.default_rng(2)
    background = np.outer(np.ones(40), rng.uniform(199, 201, 60))
    x = background + 0.2 * rng.standard_normal(background.shape)
    x[rng.random(x.shape) < 0.1] += 50
    x[3] = 0.0
    found, scale = robust_svd(x, 1).value
    error = np.abs((found.dense() - background)[np.arange(40) != 3]).max()
    assert error < 0.3
    assert 0.15 < scale < 0.3
    exact = np.where(rng.random(background.shape) < 0.1, 0.0, background)
    np.testing.assert_allclose(robust_svd(exact, 1).value[0].dense(), background, atol=1e-6)


def test_scores_of_new_rows_ignore_outliers_and_what_is_missing() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 30)) + 0.01 * rng.standard_normal((60, 30))
    fitted = RobustSVD(2, tol=1e-9).fit(rows[:50])
    spoilt = rows[50:].copy()
    spoilt[:, [4, 9]] = 30
    spoilt[:, 11] = np.nan
    np.testing.assert_allclose(fitted.transform(spoilt), fitted.transform(rows[50:]), atol=0.05)
    np.testing.assert_allclose(fitted.transform(rows[:50]), fitted.embedding_, atol=1e-5)


def test_weighted_medians_are_those_of_a_linear_program() -> None:
    rng = np.random.default_rng(4)
    x, d = rng.standard_normal((5, 9)), rng.standard_normal(9)
    seen = rng.random(x.shape) < 0.8
    found = weighted_median_scores(np.where(seen, x, 0.0), seen, d)
    for i in range(5):
        target, design = x[i, seen[i]], d[seen[i], None]
        n = len(target)
        constraints = np.block([[design, -np.eye(n)], [-design, -np.eye(n)]])
        bounds = [(None, None)] + [(0, None)] * n
        best = linprog(np.r_[0, np.ones(n)], constraints, np.r_[target, -target], bounds=bounds).fun
        assert np.abs(target - design[:, 0] * found[i]).sum() == pytest.approx(best, rel=1e-6)


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match=r"rank=5 is not in 1\.\.3"):
        robust_svd(np.ones((3, 4)), 5)
    with pytest.raises(Refused, match="alpha=-1"):
        robust_svd(np.ones((3, 4)), 1, -1)
