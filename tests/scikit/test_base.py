"""The door of the estimators: sparse tensors are what SciPy's sparse matrices are."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from eckart.arrays import number
from eckart.errors import Refused
from eckart.estimators import ESTIMATORS
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import TransformerMixin


def test_a_sparse_tensor_is_a_sparse_matrix() -> None:
    rng = np.random.default_rng(0)
    table = np.outer(1 + rng.random(12), 1 + rng.random(8)) * (rng.random((12, 8)) < 0.7)
    tensor = torch.from_numpy(table)
    fitted = [
        ESTIMATORS["soft-impute"].entry(penalty=0.1, random_state=0).fit(each).embedding_
        for each in (sparse.csr_array(table), tensor.to_sparse(), tensor.to_sparse_csr())
    ]
    np.testing.assert_array_equal(fitted[0], fitted[1])
    np.testing.assert_array_equal(fitted[0], fitted[2])
    with pytest.raises(TypeError, match=r"(?i)sparse"):
        ESTIMATORS["rpca-ialm"].entry().fit(tensor.to_sparse())


NONE = (None, "1", "a", [1.0], (), np.ones(2), np.array(1.0), True, np.True_, float("nan"), 1j)


@pytest.mark.parametrize("wrong", NONE, ids=repr)
def test_an_option_that_is_no_number_is_refused_by_name(wrong: Any) -> None:
    for check in (positive, at_least_one):
        with pytest.raises(Refused, match="tol="):
            check(tol=wrong)
    assert np.isnan(number(wrong))


def test_options_that_are_numbers_are_taken() -> None:
    assert positive(tol=np.float32(0.5)) == positive(tol=Fraction(1, 2)) == 0.5
    at_least_one(steps=np.int64(1))
    for wrong in (0, -1, np.inf, 0.0, 10**400):
        with pytest.raises(Refused, match="tol="):
            positive(tol=wrong)
    for seed in (-1, np.int64(-3), True, "a", 1.5):
        with pytest.raises(Refused, match="random_state="):
            generator_from(seed)
    assert generator_from(np.int64(3)).random() == generator_from(3).random()


class Covariance(TransformerMixin, Estimator):
    """Of trials, whose rows cannot be zero."""

    def fit(self, X: Any, y: Any = None) -> Covariance:
        self.fitted_ = True
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        if not np.asarray(X).any():
            raise Refused("zero")
        return np.asarray(X, np.float64) @ np.swapaxes(np.asarray(X, np.float64), -1, -2)

    @same_kind
    def predict(self, X: Any) -> Any:
        return np.asarray(X, np.float64).sum(axis=tuple(range(1, X.ndim)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_array_of_dask_says_the_shape_and_dtype_that_it_computes(dtype: Any) -> None:
    da = pytest.importorskip("dask.array")
    trials = np.random.default_rng(0).standard_normal((10, 4, 50)).astype(dtype)
    fitted = Covariance().fit(trials)
    for chunks in ((4, 2, 50), ((0, 7, 3), 4, 20)):
        x = da.from_array(trials, chunks=chunks)
        for method in (fitted.transform, fitted.predict):
            said, truth = method(x), method(trials)
            assert (said.shape, said.dtype) == (truth.shape, truth.dtype)
            assert said.compute().dtype == dtype
            np.testing.assert_array_equal(said.compute(), truth)
    with pytest.raises(Refused, match="zero"):
        fitted.transform(da.zeros((3, 4, 5)))


def test_what_is_no_array_of_dask_is_refused_by_name() -> None:
    delayed = pytest.importorskip("dask").delayed(np.ones)(3)
    with pytest.raises(Refused, match="Dask"):
        Covariance().fit(0).transform(delayed)
