"""Soft-Impute against its duality gap, and its limits."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.estimators.soft_impute import SoftImpute, soft_impute


def table(seed: int = 0) -> np.ndarray:
    """(50, 35) of rank 3 and noise, four tenths NaN."""
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 35)) + 0.1 * rng.standard_normal((50, 35))
    return np.where(rng.random(low.shape) < 0.4, np.nan, low)


def test_the_duality_gap_is_closed() -> None:
    """<R, M> - |R|^2 / 2 is below the optimum for every R on the pattern with |R|_2 <= lambda."""
    x, penalty = table(), 2.0
    found = soft_impute(x, penalty, tolerance=1e-7, generator=0)
    z = found.value.dense()
    seen = ~np.isnan(x)
    rest = np.where(seen, x - z, 0.0)
    primal = np.square(rest).sum() / 2 + penalty * np.linalg.norm(z, "nuc")
    dual_point = rest * min(1.0, penalty / np.linalg.norm(rest, 2))
    dual = (dual_point * np.where(seen, x, 0.0)).sum() - np.square(dual_point).sum() / 2
    assert found.converged
    assert dual <= primal <= dual * (1 + 1e-5)
    assert 3 <= len(found.value.values) < 20
    assert (np.diff(found.history) <= 0).all()


def test_of_a_whole_table_it_is_the_shrunk_svd() -> None:
    m = np.random.default_rng(1).standard_normal((30, 20))
    left, values, right = np.linalg.svd(m, full_matrices=False)
    found = soft_impute(m, 3.0, generator=0).value
    np.testing.assert_allclose(found.dense(), (left * np.maximum(values - 3, 0)) @ right, atol=1e-8)
    assert len(soft_impute(m, values[0] * 1.1, generator=0).value.values) == 0
    assert len(soft_impute(m, 0.1, rank=4, generator=0).value.values) == 4


def test_what_a_sparse_table_stores_is_observed_zeros_too() -> None:
    x = np.round(table())
    row, column = np.nonzero(~np.isnan(x))
    stored = sparse.coo_array((x[row, column], (row, column)), shape=x.shape)
    assert (stored.data == 0).any()
    dense = SoftImpute(2.0, random_state=0).fit(x)
    same = SoftImpute(2.0, random_state=0).fit(stored)
    np.testing.assert_allclose(same.predict_entries(row, column), dense.predict_entries(row, column), atol=1e-10)
    np.testing.assert_allclose(same.transform(stored.tocsr()), dense.transform(x), atol=1e-10)


def test_fitted_rows_get_the_scores_that_they_have_and_unseen_ones_the_mean() -> None:
    x = table()
    x[7], x[:, 3] = np.nan, np.nan
    fitted = SoftImpute(2.0, tol=1e-7, random_state=0).fit(x)
    np.testing.assert_allclose(fitted.transform(x), fitted.embedding_, atol=1e-4)
    whole = fitted.inverse_transform(fitted.transform(x))
    np.testing.assert_allclose(whole[7], fitted.mean_, atol=1e-9)
    np.testing.assert_allclose(whole[:, 3], np.nanmean(x), atol=1e-9)
    np.testing.assert_allclose(fitted.mean_[[0, 3]], [np.nanmean(x[:, 0]), np.nanmean(x)])
    np.testing.assert_allclose(fitted.predict_entries([-1, 7], [0, 0]), fitted.mean_[0], atol=1e-9)
    np.testing.assert_allclose(fitted.transform(np.full((1, 35), np.nan)), 0)
    np.testing.assert_allclose(fitted.transform(sparse.csr_array((2, 35))), 0)


def test_the_penalty_that_is_chosen_predicts_about_as_well_as_the_best() -> None:
    x = table(3)
    truth = np.random.default_rng(3)
    whole = truth.standard_normal((50, 3)) @ truth.standard_normal((3, 35))
    missing = np.isnan(x)

    def error(penalty: float | None) -> float:
        fitted = SoftImpute(penalty, random_state=0, tol=1e-4).fit(x)
        return float(np.linalg.norm((fitted.inverse_transform(fitted.embedding_) - whole)[missing]))

    assert error(None) <= 1.3 * min(error(at) for at in (0.3, 1.0, 3.0))


def test_nothing_of_the_size_of_a_sparse_table_is_made() -> None:
    rng = np.random.default_rng(0)
    shape, count = (3000, 2000), 6000
    place = rng.choice(shape[0] * shape[1], count, replace=False)
    x = sparse.coo_array((rng.standard_normal(count), np.unravel_index(place, shape)), shape=shape)
    tracemalloc.start()
    soft_impute(x, 2.0, rank=5, max_iter=3, generator=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < shape[0] * shape[1] * 8 / 8


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="none is stored"):
        SoftImpute().fit(sparse.csr_array((3, 4)))
    with pytest.raises(Refused, match="penalty=0"):
        soft_impute(np.ones((3, 4)), 0)
    with pytest.raises(Refused, match="max_rank=0"):
        SoftImpute(max_rank=0).fit(np.ones((3, 4)))
    fitted = SoftImpute(1.0).fit(table())
    with pytest.raises(Refused, match=r"indices from 0 to 35, and 0\.\.34"):
        fitted.predict_entries([0, 1], [0, 35])
    with pytest.raises(Refused, match="2 rows and 1 columns"):
        fitted.predict_entries([0, 1], [0])
