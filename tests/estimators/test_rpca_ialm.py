"""Robust PCA against its optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators.godec import GoDec
from eckart.estimators.rpca_ialm import RobustPCA, principal_component_pursuit


def test_a_dual_point_bounds_what_is_left_to_gain() -> None:
    """<Y, M> is at most the optimum for every Y of |Y|_2 <= 1 and |Y|_max <= lambda."""
    rng = np.random.default_rng(0)
    m = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    m += np.where(rng.random(m.shape) < 0.1, rng.standard_normal(m.shape) * 9, 0.0)
    penalty = 1 / np.sqrt(40)
    low, sparse = principal_component_pursuit(m, tolerance=1e-9, generator=0).value
    reached = low.values.sum() + penalty * np.abs(sparse).sum()
    aligned = low.left @ low.right.T
    y = aligned
    for _ in range(300):
        y = np.where(np.abs(sparse) > 1e-6, penalty * np.sign(sparse), np.clip(y, -penalty, penalty))
        inside = y - low.left @ (low.left.T @ y)
        inside -= (inside @ low.right) @ low.right.T
        left, values, right = np.linalg.svd(inside, full_matrices=False)
        y = aligned + (left * np.minimum(values, 1.0)) @ right
    y /= max(np.linalg.norm(y, 2), np.abs(y).max() / penalty)
    np.testing.assert_allclose(low.dense() + sparse, m, atol=1e-6)
    assert (y * m).sum() <= reached * (1 + 1e-9)
    assert (y * m).sum() >= reached * (1 - 1e-3)


def test_nothing_is_an_outlier_at_a_high_penalty_and_everything_at_a_low_one() -> None:
    m = np.random.default_rng(1).standard_normal((20, 30))
    low, sparse = principal_component_pursuit(m, 10.0, generator=0).value
    np.testing.assert_allclose(low.dense(), m, atol=1e-6)
    low, sparse = principal_component_pursuit(m, 0.01, generator=0).value
    np.testing.assert_allclose(sparse, m, atol=1e-6)


def test_outliers_of_new_rows_do_not_move_their_scores() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((90, 3)) @ rng.standard_normal((3, 40))
    fitted = RobustPCA(random_state=0).fit(rows[:80])
    clean, spoilt = rows[80:], rows[80:].copy()
    spoilt[:, [3, 17]] = 1e3
    spoilt[:, 5] = np.nan
    np.testing.assert_allclose(fitted.transform(spoilt), fitted.transform(clean), atol=1e-4)


def test_entries_near_the_largest_number_are_no_zeros() -> None:
    table = np.outer(np.ones(6), [1.0, -1.0, 0.5, 1.0])
    assert RobustPCA().fit(table * 2.0**1021).singular_values_.size == 1
    with np.errstate(over="ignore"), pytest.raises(Refused, match="singular values are infinite"):
        RobustPCA().fit(table * 2.0**1023)


def test_a_row_of_nothing_has_no_scores() -> None:
    rows = np.random.default_rng(4).standard_normal((30, 8))
    for robust in (RobustPCA(random_state=0), GoDec(random_state=0)):
        assert not robust.fit(rows).transform(np.full((1, 8), np.nan)).any()


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="max_iter=0"):
        principal_component_pursuit(np.ones((3, 4)), max_iter=0)
    with pytest.raises(Refused, match="all are NaN"):
        principal_component_pursuit(np.full((3, 4), np.nan))
    with pytest.raises(Refused, match="penalty=-1"):
        principal_component_pursuit(np.ones((3, 4)), -1)
