"""Private regression: how far a report moves, whether one can be told from another, and limits without noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Lasso

from eckart.errors import Refused
from eckart.estimators.ldp_sparse_regression import (
    PAIR,
    PRODUCT,
    LocallyPrivateLasso,
    clipped,
    closed_form,
    lasso,
    packed,
    psd_with_floor,
    reports,
    unpacked,
)


def pair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.concatenate([packed(x[:, :, None] * x[:, None, :]), x * y[:, None]], axis=1)


def test_no_two_rows_are_further_apart_than_the_sensitivity_and_some_are_that_far() -> None:
    rng = np.random.default_rng(0)
    x, other = (clipped(rng.standard_normal((200000, 2)) * 2, 1.0) for _ in range(2))
    y, to = rng.choice([-1.0, 0.5, 1.0], (2, 200000))
    apart = np.linalg.norm(pair(x, y) - pair(other, to), axis=1)
    assert 0.999 * PAIR < apart.max() <= PAIR
    products = np.linalg.norm(x * y[:, None] - other * to[:, None], axis=1)
    assert 0.999 * PRODUCT < products.max() <= PRODUCT + 1e-12


def test_packing_keeps_norms_and_comes_back() -> None:
    a = np.random.default_rng(1).standard_normal((4, 4))
    a = a + a.T
    assert np.linalg.norm(packed(a)) == pytest.approx(np.linalg.norm(a))
    np.testing.assert_allclose(unpacked(packed(a), 4), a)


def test_rows_are_shortened_never_turned_nor_lost_when_huge() -> None:
    x = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [3 * 2.0**600, 4 * 2.0**600]])
    np.testing.assert_allclose(clipped(x, 2.0), [[0.6, 0.8], [0.15, 0.2], [0, 0], [0.6, 0.8]])


def test_reports_of_the_two_most_distant_rows_are_hard_to_tell_apart() -> None:
    """The best test between them: P(says one | one) <= e^epsilon P(says one | other) + delta, nearly met."""
    epsilon, delta, n = 1.0, 0.05, 40000
    x = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    # The cosine of the two is 1/2, where the distance is largest, with targets of opposite sign: x . x' y y' < 0.
    y = np.array([1.0, -1.0])
    exact = pair(x, y)
    assert np.linalg.norm(exact[0] - exact[1]) == pytest.approx(PAIR)
    told = [reports(np.repeat(x[i : i + 1], n, 0), np.full(n, y[i]), 1, 1, epsilon, delta, generator=i) for i in (0, 1)]
    ways = [each @ (exact[0] - exact[1]) for each in told]
    for edge in np.quantile(np.concatenate(ways), [0.3, 0.6, 0.8, 0.9]):
        one, other = ((way > edge).mean() for way in ways)
        assert one <= np.exp(epsilon) * other + delta + 0.015
    met = max((ways[0] > edge).mean() - np.exp(epsilon) * (ways[1] > edge).mean() for edge in np.sort(ways[0])[::400])
    assert met > 0.8 * delta


def test_the_sum_that_is_fitted_has_the_law_of_the_reports() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((300, 3)) / 3, rng.standard_normal(300) / 2
    sums = [reports(x, y, 1, 1, 5.0, 1e-5, generator=seed).sum(0) for seed in range(200)]
    expected = pair(clipped(x, 1.0), np.clip(y, -1, 1)).sum(0)
    noise = LocallyPrivateLasso(5.0, delta=1e-5, random_state=0).fit(x, y).noise_ * np.sqrt(300)
    assert np.abs(np.mean(sums, 0) - expected).max() < 4 * noise / np.sqrt(200)
    assert np.std(sums, 0).mean() == pytest.approx(noise, rel=0.05)


def test_without_noise_it_is_the_lasso_and_the_papers_form_is_least_squares() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 5)) / 9
    y = x @ [1.0, 0, 0, -0.5, 0] + 0.01 * rng.standard_normal(400)
    moment, products = x.T @ x / 400, x.T @ y / 400
    exact = Lasso(1e-4, fit_intercept=False, tol=1e-12).fit(x, y).coef_
    np.testing.assert_allclose(lasso(moment, products, 1e-4), exact, atol=1e-6)
    np.testing.assert_allclose(closed_form(moment, products, 0.0), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-9)
    nearly = LocallyPrivateLasso(1e9, penalty=0, random_state=0).fit(x, y).coef_
    np.testing.assert_allclose(nearly, np.linalg.lstsq(x, y, rcond=None)[0], atol=0.1)


def test_public_rows_take_noise_away_and_more_rows_do() -> None:
    rng = np.random.default_rng(4)
    theta = np.array([0.8, 0, 0, -0.6, 0, 0])

    def error(n: int, seed: int, public: bool) -> float:
        x = rng.standard_normal((n, 6)) / 3
        fitted = LocallyPrivateLasso(10.0, random_state=seed)
        fitted.fit(x, x @ theta, public=rng.standard_normal((3000, 6)) / 3 if public else None)
        return float(np.linalg.norm(fitted.coef_ - theta))

    few, many, helped = (
        np.median([error(n, seed, public) for seed in range(9)])
        for n, public in ((3000, False), (60000, False), (3000, True))
    )
    assert many < 0.7 * few
    assert helped < few


def test_a_floor_is_under_all_eigenvalues() -> None:
    found = psd_with_floor(np.array([[1.0, 3.0], [3.0, 1.0]]), 0.5)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), [0.5, 4.0])


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="x_bound=0"):
        LocallyPrivateLasso(x_bound=0).fit(np.eye(3), np.ones(3))
    with pytest.raises(Refused, match="epsilon=-1"):
        LocallyPrivateLasso(-1).fit(np.eye(3), np.ones(3))


def test_a_table_of_dask_is_summed_block_by_block() -> None:
    dask = pytest.importorskip("dask.array")
    rng = np.random.default_rng(8)
    x = rng.standard_normal((90, 4))
    y = x @ [1.0, 0.0, -1.0, 0.0]
    options: dict = {"epsilon": 100.0, "x_bound": 4.0, "y_bound": 4.0, "random_state": 0}
    whole = LocallyPrivateLasso(**options).fit(x, y)
    table = dask.from_array(x, chunks=(40, 3))
    for targets in (y, dask.from_array(y, chunks=25)):
        np.testing.assert_allclose(LocallyPrivateLasso(**options).fit(table, targets).coef_, whole.coef_, rtol=1e-9)
    with pytest.raises(ValueError, match="rows"):
        LocallyPrivateLasso(**options).fit(table, np.r_[y, y])
