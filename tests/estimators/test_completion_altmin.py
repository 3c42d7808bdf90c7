"""Alternating completion: stationary points of the objective written out, its limits, rows that are new."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.model_selection import GridSearchCV

from eckart.errors import Refused
from eckart.estimators.completion_altmin import AlternatingCompletion, alternating_ridge


def ratings(seed: int = 0) -> np.ndarray:
    """(40, 30) whole numbers, two thirds NaN, some rows with one entry."""
    rng = np.random.default_rng(seed)
    low = 3 + rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30)) + rng.standard_normal((40, 1))
    x = np.where(rng.random(low.shape) < 0.66, np.nan, np.round(low))
    x[5] = np.nan
    x[5, 2] = 4
    return x


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_it_ends_where_the_gradient_of_the_objective_vanishes(solver: str) -> None:
    x, penalty = ratings(), 0.05
    found = alternating_ridge(x, 3, penalty, solver=solver, tolerance=1e-9, max_iter=500, generator=0)
    seen = torch.from_numpy(~np.isnan(x))
    z = torch.from_numpy(np.nan_to_num((x - np.nanmean(x)) / np.nanstd(x)))
    rows = torch.from_numpy(found.value.rows).requires_grad_()
    columns = torch.from_numpy(found.value.columns).requires_grad_()
    whole = rows[:, :-1] @ columns[:, :-1].T + rows[:, -1:] + columns[:, -1]
    ridge = (seen.sum(1) * rows.square().sum(1)).sum() + (seen.sum(0) * columns.square().sum(1)).sum()
    objective = ((z - whole)[seen].square().sum() + penalty * ridge) / seen.sum()
    objective.backward()
    assert found.converged
    assert objective.item() == pytest.approx(found.history[-1], rel=1e-9)
    assert max(float(rows.grad.abs().max()), float(columns.grad.abs().max())) < 1e-5
    assert (np.diff(found.history) <= 1e-12).all()


def test_of_a_whole_table_with_little_ridge_it_is_the_truncated_svd() -> None:
    rng = np.random.default_rng(1)
    m = rng.standard_normal((25, 4)) @ np.diag([9, 5, 2, 0.1]) @ rng.standard_normal((4, 20))
    m -= m.mean(1, keepdims=True)
    m -= m.mean(0)
    left, values, right = np.linalg.svd(m, full_matrices=False)
    fitted = AlternatingCompletion(2, 1e-7, tol=1e-9, max_iter=3000, random_state=0).fit(m)
    found = fitted.inverse_transform(fitted.embedding_)
    np.testing.assert_allclose(found, (left[:, :2] * values[:2]) @ right[:2], atol=1e-3 * values[0])


def test_fitted_rows_get_the_scores_that_they_have_and_unseen_ones_the_mean() -> None:
    x = ratings()
    x[7], x[:, 3] = np.nan, np.nan
    fitted = AlternatingCompletion(3, random_state=0).fit(x)
    np.testing.assert_allclose(fitted.transform(x), fitted.embedding_, atol=1e-9)
    whole = fitted.inverse_transform(fitted.transform(x))
    np.testing.assert_allclose(whole[7], fitted.mean_, atol=1e-9)
    np.testing.assert_allclose(fitted.mean_[3], np.nanmean(x))
    np.testing.assert_allclose(whole[:, 3], np.nanmean(x) + fitted.embedding_[:, -1])
    row, column = np.nonzero(~np.isnan(x))
    np.testing.assert_allclose(fitted.predict_entries(row, column), whole[row, column])
    np.testing.assert_allclose(fitted.predict_entries([-1], [4]), fitted.mean_[4])
    np.testing.assert_allclose(fitted.transform(sparse.csr_array((2, 30))), 0)


def test_numbers_of_another_scale_are_completed_alike() -> None:
    x = ratings()
    one = AlternatingCompletion(2, random_state=0).fit(x)
    other = AlternatingCompletion(2, random_state=0).fit(1e6 * x - 5e6)
    expected = 1e6 * one.inverse_transform(one.transform(x)) - 5e6
    np.testing.assert_allclose(other.inverse_transform(other.transform(1e6 * x - 5e6)), expected, rtol=1e-6)


def test_stored_zeros_are_observed() -> None:
    x = ratings() - 3
    row, column = np.nonzero(~np.isnan(x))
    stored = sparse.csr_array((x[row, column], (row, column)), shape=x.shape)
    assert (stored.data == 0).any()
    one, other = (AlternatingCompletion(2, random_state=0).fit(each) for each in (x, stored))
    np.testing.assert_allclose(other.embedding_, one.embedding_, atol=1e-9)


def test_biases_alone_are_a_ridge_regression_on_indicators() -> None:
    x, penalty = ratings(), 0.2
    seen = ~np.isnan(x)
    row, column = np.nonzero(seen)
    z = (x[seen] - x[seen].mean()) / x[seen].std()
    design = np.hstack([np.eye(40)[row], np.eye(30)[column]])
    ridge = np.diag(np.sqrt(penalty * np.r_[seen.sum(1), seen.sum(0)]))
    expected = np.linalg.lstsq(np.vstack([design, ridge]), np.r_[z, np.zeros(70)], rcond=None)[0]
    found = alternating_ridge(x, 0, penalty, tolerance=1e-12, max_iter=200).value
    np.testing.assert_allclose(np.r_[found.rows[:, 0], found.columns[:, 0]], expected, atol=1e-5)


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="rank=-1"):
        alternating_ridge(np.ones((3, 4)), -1)
    with pytest.raises(Refused, match="penalty=0"):
        alternating_ridge(np.ones((3, 4)), 1, 0.0)
    with pytest.raises(Refused, match="'sketch' is none of cholesky, cg"):
        alternating_ridge(np.ones((3, 4)), 1, solver="sketch")


def test_an_array_of_dask_gives_what_the_whole_table_does() -> None:
    dask_array = pytest.importorskip("dask.array")
    x, scale = ratings() * 2.0**-400, 2.0**400
    parts = dask_array.from_array(x, chunks=(15, 11))
    options = {"n_components": 3, "random_state": 0, "tol": 1e-2}
    whole, by_parts = (AlternatingCompletion(**options).fit(each) for each in (x, parts))
    np.testing.assert_allclose(by_parts.history_, whole.history_, rtol=1e-9)
    said, same = (each.embedding_ @ each.components_ + each.mean_ for each in (by_parts, whole))
    np.testing.assert_allclose(said * scale, same * scale, atol=1e-9)
    np.testing.assert_allclose(by_parts.transform(parts).compute() * scale, whole.transform(x) * scale, atol=1e-9)
    inexact = AlternatingCompletion(**options, solver="cg").fit(parts)
    assert inexact.history_[-1] == pytest.approx(whole.history_[-1], rel=0.1)
    with pytest.raises(Refused, match="none of the 40 x 30"):
        AlternatingCompletion().fit(parts * np.nan)
    with pytest.raises(ValueError, match="inf"):
        AlternatingCompletion().fit(dask_array.where(parts > 0, np.inf, parts))


def test_a_search_finds_the_number_of_factors() -> None:
    rng = np.random.default_rng(5)
    low = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 40)) + 0.1 * rng.standard_normal((90, 40))
    x = np.where(rng.random(low.shape) < 0.5, np.nan, low)
    stored = sparse.csr_array((low[~np.isnan(x)], np.nonzero(~np.isnan(x))), shape=low.shape)
    for table in (x, stored):
        search = GridSearchCV(AlternatingCompletion(penalty=0.01, random_state=0), {"n_components": [0, 2, 12]}, cv=3)
        assert search.fit(table).best_params_ == {"n_components": 2}
    # A score is minus the error at entries that are not looked at.
    fitted = AlternatingCompletion(2, penalty=0.01, random_state=0).fit(x[:60])
    assert -0.3 < fitted.score(x[60:]) < -0.1
    assert fitted.score(1.0 * x[60:]) == fitted.score(stored[60:])
    with pytest.raises(Refused, match="none of the 30 x 40"):
        fitted.score(np.full((30, 40), np.nan))
