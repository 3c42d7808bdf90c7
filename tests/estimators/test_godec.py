"""GoDec: each step is a best one, its limits, rows that are new."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators.godec import GoDec, go_decomposition


def problem() -> tuple[np.ndarray, np.ndarray]:
    """(40, 30) of rank 2 with noise and 60 outliers, and what is of low rank in it."""
    rng = np.random.default_rng(0)
    low = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    x = low + 0.01 * rng.standard_normal(low.shape)
    x.flat[rng.choice(x.size, 60, replace=False)] += 5
    return x, low


def test_neither_part_can_be_bettered_while_the_other_is_held() -> None:
    x, low = problem()
    found = go_decomposition(x, 2, 0.05, tolerance=1e-12, generator=0)
    part, sparse = found.value
    left, values, right = np.linalg.svd(x - sparse, full_matrices=False)
    np.testing.assert_allclose(part.dense(), (left[:, :2] * values[:2]) @ right[:2], atol=1e-6)
    rest = np.abs(x - part.dense())
    assert (sparse != 0).sum() == 60
    assert rest[sparse != 0].min() >= rest[sparse == 0].max()
    np.testing.assert_allclose(sparse[sparse != 0], (x - part.dense())[sparse != 0])
    assert (np.diff(found.history) <= 1e-12).all()
    assert found.history[-1] == pytest.approx(np.linalg.norm(x - part.dense() - sparse) / np.linalg.norm(x))
    assert np.abs(part.dense() - low).max() < 0.05


def test_without_outliers_it_is_the_truncated_svd() -> None:
    x = np.random.default_rng(1).standard_normal((40, 30))
    left, values, right = np.linalg.svd(x, full_matrices=False)
    part, sparse = go_decomposition(x, 3, 0.0, tolerance=1e-12, generator=0).value
    assert not sparse.any()
    np.testing.assert_allclose(part.dense(), (left[:, :3] * values[:3]) @ right[:3], atol=1e-4)


def test_missing_entries_and_outliers_of_new_rows_change_nothing() -> None:
    x, low = problem()
    holed = x.copy()
    holed[::7, ::5] = np.nan
    fitted = GoDec(2, 0.05, random_state=0).fit(holed)
    assert np.abs(fitted.low_rank_ - low).max() < 0.1
    assert not fitted.sparse_[np.isnan(holed)].any()
    scores = fitted.transform(low)
    spoilt = low.copy()
    spoilt[:, 4] = 99
    np.testing.assert_allclose(fitted.transform(spoilt), scores, atol=0.05)


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match=r"rank=5 is not in 1\.\.3"):
        go_decomposition(np.ones((3, 4)), 5, 0.1)
    with pytest.raises(Refused, match="share=1"):
        go_decomposition(np.ones((3, 4)), 1, 1.0)
