"""Singular values above a threshold, against whole decompositions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.linalg import thresholded_svd
from eckart.linalg.sparse_plus_low_rank import SparsePlusLowRank
from eckart.linalg.thresholded_svd import spectral_norm


def graded(m: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix whose singular values fall from 1 to 1e-9, and these."""
    rng = np.random.default_rng(seed)
    k = min(m, n)
    u, v = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (m, n))
    values = np.geomspace(1, 1e-9, k)
    return (u * values) @ v.T, values


@pytest.mark.parametrize("shape", [(30, 200), (200, 30), (120, 110)], ids=str)
@pytest.mark.parametrize("small", [512, 8], ids=["whole", "block"])
@pytest.mark.parametrize("threshold", [0.1, 1e-3, 1e-6, 1e-8, 0.0])
def test_all_above_are_found(
    shape: tuple[int, int], threshold: float, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholded_svd, "SMALL", small)
    a, values = graded(*shape)
    found = thresholded_svd.thresholded_svd(a, threshold, np.zeros((shape[1], 0)), np.random.default_rng(0))
    above = values[values > threshold]
    np.testing.assert_allclose(found.values[: len(above)], above, rtol=1e-5)
    for side in (found.left, found.right):
        np.testing.assert_allclose(side.T @ side, np.eye(len(found.values)), atol=1e-6)
    kept = slice(len(above))
    near = (found.left[:, kept] * found.values[kept]) @ found.right[:, kept].T
    assert np.linalg.norm(a - near, 2) <= max(1e-14, threshold * (1 + 1e-5))


@pytest.mark.parametrize("shape", [(30, 90), (90, 30), (20, 15)], ids=str)
@pytest.mark.parametrize("most", [3, 9])
def test_an_operator_and_a_bound_give_the_first_ones(shape: tuple[int, int], most: int) -> None:
    rng = np.random.default_rng(1)
    a, values = graded(*shape)
    operator = SparsePlusLowRank(sparse.csr_array(np.where(a > 0, a, 0.0)), np.minimum(a, 0.0), np.eye(shape[1]))
    for matrix in (a, operator):
        found = thresholded_svd.thresholded_svd(matrix, 0.0, np.zeros((shape[1], 0)), rng, most=most)
        np.testing.assert_allclose(found.values[:most], values[:most], rtol=1e-5)
        near = (found.left[:, :most] * found.values[:most]) @ found.right[:, :most].T
        assert np.linalg.norm(a - near, 2) <= values[most] * (1 + 1e-3)


def test_of_any_size_and_of_nothing() -> None:
    a, values = graded(20, 50)
    rng = np.random.default_rng(0)
    for unit in (2.0**500, 2.0**-500):
        found = thresholded_svd.thresholded_svd(a * unit, 0.1 * unit, np.zeros((50, 0)), rng)
        np.testing.assert_allclose(found.values[:2], values[:2] * unit)
    zero = thresholded_svd.thresholded_svd(np.zeros((20, 50)), 1.0, np.zeros((50, 0)), rng)
    assert not (zero.values > 1.0).any()


def test_the_norm_is_met_from_below() -> None:
    a, _ = graded(60, 40)
    assert 0.95 < spectral_norm(a, np.random.default_rng(0)) < 1 + 1e-12
