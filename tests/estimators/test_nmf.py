"""Factors without negative entries: their regressions by SciPy, a fall without a rise, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from eckart.errors import Refused
from eckart.estimators.nmf import (
    NonnegativeFactorization,
    nonnegative_factors,
    normal_equations,
    singular_start,
)
from eckart.linalg.simplex import sweeps

RNG = np.random.default_rng(0)
TABLE = RNG.gamma(0.5, size=(50, 4)) @ RNG.gamma(0.5, size=(4, 30)) + 0.1 * RNG.random((50, 30))


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_row_is_the_regression_that_scipy_solves_on_what_is_observed(share: float) -> None:
    h = RNG.gamma(0.5, size=(4, 30))
    seen = RNG.random(TABLE.shape) >= share
    observed = None if share == 0 else seen.astype(float)
    gram, linear = normal_equations(np.where(seen, TABLE, 0), observed, h)
    found = sweeps(gram, linear, np.zeros_like(linear), 5000, 1e-10).T
    for row, target, known in zip(found, TABLE, seen, strict=True):
        np.testing.assert_allclose(row, nnls(h[:, known].T, target[known])[0], atol=1e-7)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_objective_is_what_it_says_and_never_rises(share: float) -> None:
    x = np.where(np.random.default_rng(1).random(TABLE.shape) < share, np.nan, TABLE)
    found = nonnegative_factors(x, 4, penalty=0.0, tolerance=1e-6, generator=0)
    w, h = found.value
    assert found.converged
    assert min(w.min(), h.min()) >= 0
    assert (np.diff(found.history) <= 0).all()
    np.testing.assert_allclose(found.history[-1], np.nansum((x - w @ h) ** 2) / np.nansum(x**2), rtol=1e-6)


def test_it_ends_no_higher_than_scikit_learn_from_the_same_start() -> None:
    left, right = singular_start(TABLE, 4, np.random.default_rng(0))
    model = NMF(4, init="custom", tol=1e-6, max_iter=2000)
    w = model.fit_transform(TABLE, W=left.T.copy(), H=right.copy())
    theirs = np.square(TABLE - w @ model.components_).sum() / np.square(TABLE).sum()
    assert nonnegative_factors(TABLE, 4, start=(left.T, right), tolerance=1e-6).history[-1] < 1.001 * theirs


def test_rank_one_is_the_singular_vector_that_has_one_sign() -> None:
    left, values, right = np.linalg.svd(TABLE)
    w, h = nonnegative_factors(TABLE, 1, tolerance=1e-10, generator=0).value
    np.testing.assert_allclose(w @ h, values[0] * np.outer(left[:, 0], right[0]), atol=1e-5)


def test_sparse_is_dense_and_what_nothing_is_known_of_is_zero() -> None:
    x = np.where(np.median(TABLE) > TABLE, 0, TABLE)
    dense, stored = (NonnegativeFactorization(3, random_state=0).fit(each) for each in (x, sparse.csr_matrix(x)))
    np.testing.assert_allclose(stored.components_, dense.components_, atol=1e-8)
    np.testing.assert_allclose(stored.transform(sparse.csc_array(x)), dense.transform(x), atol=1e-8)
    x[:, 2] = x[7] = np.nan
    fitted = NonnegativeFactorization(3, random_state=0).fit(x)
    assert not fitted.components_[:, 2].any()
    assert not fitted.transform(x)[7].any()
    assert not NonnegativeFactorization(3).fit(np.zeros((5, 4))).transform(np.zeros((5, 4))).any()


def test_where_most_is_missing_nothing_grows_without_bound() -> None:
    held = np.random.default_rng(2).random(TABLE.shape) < 0.85
    holes = np.where(held, np.nan, TABLE)

    def error(**options: float) -> float:
        fitted = NonnegativeFactorization(4, random_state=0, **options).fit(holes)
        whole = fitted.inverse_transform(fitted.transform(holes))
        return float(np.linalg.norm((whole - TABLE)[held]) / np.linalg.norm(TABLE[held]))

    assert error() < 0.7
    assert error(penalty=0.1) < 0.7


def test_what_it_cannot_factor_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="Negative values"):
        nonnegative_factors(-TABLE, 2)
    with pytest.raises(Refused, match="missing in dense X only"):
        nonnegative_factors(sparse.csr_array(np.array([[1.0, np.nan], [0.0, 2.0]])), 1)
    for option, value in (("n_components", 0), ("tol", 0), ("max_iter", 0), ("penalty", -0.1)):
        with pytest.raises(Refused, match="tolerance" if option == "tol" else option):
            NonnegativeFactorization(**{option: value}).fit(TABLE)
