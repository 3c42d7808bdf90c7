"""CUR: columns as they were, the best core between them, errors near those of the SVD."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.estimators.cur import CURDecomposition


def table(seed: int = 0) -> np.ndarray:
    """(60, 40) whose singular values fall by a half each."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, 40)))[0] for n in (60, 40))
    return (left * 2.0 ** -np.arange(40)) @ right.T


def test_the_core_is_the_best_between_columns_and_rows() -> None:
    x = table()
    fitted = CURDecomposition(5, random_state=0).fit(x)
    c, r = x[:, fitted.columns_], x[fitted.rows_]
    np.testing.assert_allclose(fitted.core_, np.linalg.pinv(c) @ x @ np.linalg.pinv(r), rtol=1e-6)
    np.testing.assert_allclose(fitted.components_, fitted.core_ @ r, rtol=1e-9)
    np.testing.assert_array_equal(fitted.transform(x), c)
    np.testing.assert_allclose(fitted.inverse_transform(c), c @ fitted.core_ @ r)


def test_errors_are_some_times_those_of_the_svd() -> None:
    ratios = []
    for seed in range(5):
        x = table(seed)
        fitted = CURDecomposition(6, random_state=seed).fit(x)
        best = np.sqrt(np.square(np.linalg.svd(x, compute_uv=False)[6:]).sum())
        ratios.append(np.linalg.norm(fitted.inverse_transform(fitted.transform(x)) - x) / best)
    assert min(ratios) >= 1
    assert max(ratios) < 6


def test_sparse_tables_give_what_dense_ones_do_and_names_are_kept() -> None:
    pandas = pytest.importorskip("pandas")
    x = np.where(np.random.default_rng(1).random((30, 12)) < 0.6, 0.0, table()[:30, :12])
    dense, thin = (CURDecomposition(4, random_state=0).fit(each) for each in (x, sparse.csr_array(x)))
    np.testing.assert_array_equal(dense.columns_, thin.columns_)
    np.testing.assert_allclose(thin.transform(sparse.csr_array(x)), dense.transform(x))
    np.testing.assert_allclose(thin.components_, dense.components_, rtol=1e-9)
    named = CURDecomposition(4, random_state=0).fit(pandas.DataFrame(x, columns=[f"band {i}" for i in range(12)]))
    assert list(named.get_feature_names_out()) == [f"band {i}" for i in named.columns_]


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="rank=0"):
        CURDecomposition(0).fit(np.ones((3, 4)))
