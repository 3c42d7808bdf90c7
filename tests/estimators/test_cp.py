"""Sums of outer products: what they are, on their scales, with entries missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.estimators.cp import outer_products


def planted(*shape: int, rank: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.zeros(shape)
    for _ in range(rank):
        term = np.ones(())
        for n in shape:
            term = np.multiply.outer(term, rng.standard_normal(n))
        found += term
    return found


def test_a_matrix_becomes_its_svd_in_value_and_five_modes_are_found() -> None:
    matrix = np.random.default_rng(0).standard_normal((6, 5))
    found = outer_products(matrix, 2, generator=0)
    u, s, v = np.linalg.svd(matrix)
    np.testing.assert_allclose(found.value.dense(), (u[:, :2] * s[:2]) @ v[:2], atol=1e-3)
    five = planted(4, 3, 2, 3, 5)
    found = outer_products(torch.from_numpy(five), 2, generator=0)
    assert isinstance(found.value.weights, torch.Tensor)
    np.testing.assert_allclose(found.value.dense(), five, atol=1e-3 * np.abs(five).max())
    assert (np.diff(found.value.weights) <= 0).all()
    np.testing.assert_allclose([np.linalg.norm(f, axis=0) for f in found.value.factors], 1)


def test_most_entries_may_be_missing_and_a_slice_too() -> None:
    truth = planted(12, 10, 9)
    spoilt = np.where(np.random.default_rng(1).random(truth.shape) < 0.7, np.nan, truth)
    spoilt[3] = np.nan
    found = outer_products(spoilt * 2.0**300, 2, generator=0)
    said = found.value.dense() / 2.0**300
    known = np.arange(12) != 3
    assert np.linalg.norm((said - truth)[known]) < 1e-3 * np.linalg.norm(truth)
    assert np.isfinite(said).all()
    assert found.error == min(found.history) < 1e-3


def test_degenerate_tensors_are_met_or_refused() -> None:
    assert not outer_products(np.zeros((3, 2, 2)), 2).value.dense().any()
    one = outer_products(np.ones((3, 2, 2), np.float32), 3, generator=0)
    assert one.value.weights.dtype == np.float32
    np.testing.assert_allclose(one.value.dense(), 1, atol=1e-4)
    single = np.full((3, 3, 3), np.nan)
    single[1, 2, 0] = 5.0
    assert outer_products(single, 1, generator=0).value.dense()[1, 2, 0] == pytest.approx(5, rel=1e-3)
    for tensor, options, words in (
        (np.ones(4), {}, r"of shape \(4,\)"),
        (np.full((2, 2), np.nan), {}, "none of the 2 x 2 entries"),
        (np.ones((2, 2)), {"rank": 0}, "rank=0"),
        (np.ones((2, 2)), {"damping": -1.0}, "damping=-1.0"),
    ):
        with pytest.raises(Refused, match=words):
            outer_products(tensor, **{"rank": 1} | options)
