"""Scores of rows against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize

from eckart.errors import Refused
from eckart.linalg.leverage import leverage_scores, lewis_weights, lp_sensitivities, sample_rows
from eckart.linalg.sketches import SparseSign


def heavy(n: int = 30, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(1.5, (n, d))


def test_leverage_is_the_diagonal_of_the_projection() -> None:
    a = heavy()
    expected = np.diag(a @ np.linalg.pinv(a))
    for given in (a, sparse.csr_array(a), a * [1e150, 1, 1e-150]):
        np.testing.assert_allclose(leverage_scores(given), expected, atol=1e-10)
    deficient = np.concatenate([a, a[:, :1] + a[:, 1:2], np.zeros((30, 1))], 1)
    np.testing.assert_allclose(leverage_scores(deficient), expected, atol=1e-10)
    assert not leverage_scores(np.zeros((4, 2))).any()
    ratio = leverage_scores(heavy(2000), SparseSign(300, 2000, 0)) / leverage_scores(heavy(2000))
    assert 0.6 < ratio.min() < ratio.max() < 1.7


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, 4.0, 8.0])
def test_lewis_weights_are_their_own_leverage(p: float) -> None:
    a = np.concatenate([heavy(), np.zeros((1, 3))])
    w = lewis_weights(a, p)
    assert w[-1] == 0
    assert w.sum() == pytest.approx(3)
    with np.errstate(divide="ignore"):
        scaled = np.where(w > 0, w ** (0.5 - 1 / p), 0)[:, None] * a
    np.testing.assert_allclose(leverage_scores(scaled), w, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0])
def test_sensitivities_are_maxima(p: float) -> None:
    a = heavy(12, 2)
    found = lp_sensitivities(a, p)
    angle = np.linspace(0, np.pi, 20_001)
    products = np.abs(a @ np.stack([np.cos(angle), np.sin(angle)])) ** p
    np.testing.assert_allclose(found, (products / products.sum(0)).max(1), rtol=1e-4)
    np.testing.assert_allclose(lp_sensitivities(a @ [[2.0, 1.0], [0.0, 3.0]], p, [3, 5]), found[[3, 5]], rtol=1e-7)


def test_sensitivities_in_more_dimensions() -> None:
    a = heavy(15, 4, 2)
    found = lp_sensitivities(a, 3.0, [0])[0]
    starts = np.random.default_rng(0).standard_normal((3, 4))
    direct = [minimize(lambda x: -(abs(a[0] @ x) ** 3) / (np.abs(a @ x) ** 3).sum(), x).fun for x in starts]
    assert found == pytest.approx(-min(direct), rel=1e-4)
    assert not lp_sensitivities(np.zeros((2, 2)), 1).any()


def test_rows_that_are_drawn_keep_norms_in_the_mean() -> None:
    a, x = heavy(), np.array([1.0, -0.5, 2.0])
    exact = np.abs(a @ x).sum()
    w = lewis_weights(a, 1)
    sums, counts = [], []
    for seed in range(400):
        index, weight = sample_rows(w, 12, 1, seed)
        sums.append(np.abs(weight * (a[index] @ x)).sum())
        counts.append(len(index))
    # Beyond 5 standard errors once in 2 million.
    assert abs(np.mean(sums) - exact) < 5 * np.std(sums) / 20
    assert abs(np.mean(counts) - 12) < 5 * np.std(counts) / 20
    with_zeros = np.concatenate([w, np.zeros(3)])
    with np.errstate(all="raise"):
        assert max(sample_rows(with_zeros, 12, 1, seed)[0].max() for seed in range(20)) < 30
    index, weight = sample_rows(w, 30, 1)
    assert len(index) == 30
    assert (weight == 1).all()
    with pytest.raises(Refused, match="not negative"):
        sample_rows(-w, 2)
    with pytest.raises(Refused, match="p=0"):
        lewis_weights(a, 0)
