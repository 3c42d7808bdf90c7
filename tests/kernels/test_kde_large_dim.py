"""Kernel densities: scipy's and scikit-learn's numbers, widths by their formulas, and what many dimensions do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity as Theirs

from eckart.errors import Refused
from eckart.kernels.kde_large_dim import KernelDensity, best_width, rule_of_thumb, tail_index, thresholds
from eckart.linalg.log_sums import log_sums


def test_the_full_shape_is_scipys_and_the_round_one_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 3)), rng.standard_normal((9, 3))
    # scipy divides the covariance by n - 1.
    ours = KernelDensity(0.5 * np.sqrt(80 / 79)).fit(x)
    np.testing.assert_allclose(ours.score_samples(new), gaussian_kde(x.T, 0.5).logpdf(new.T), rtol=1e-9)
    spread = np.sqrt(x.var(0).mean())
    theirs = Theirs(bandwidth=0.5 * spread).fit(x)
    one = KernelDensity(0.5, shape="round").fit(x)
    np.testing.assert_allclose(one.score_samples(new), theirs.score_samples(new), rtol=1e-9)
    assert one.score(new) == pytest.approx(theirs.score(new))
    drawn = ours.sample(4000, 0)
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), np.cov(x.T, bias=True) * (1 + 0.25 * 80 / 79), atol=0.5)


def test_a_matrix_is_the_kernels_covariance_in_the_units_of_the_data() -> None:
    rng = np.random.default_rng(3)
    x, new = rng.standard_normal((50, 2)), rng.standard_normal((7, 2))
    h = np.array([[0.5, 0.3], [0.3, 0.4]])
    inner = np.einsum("ijp,pq,ijq->ij", new[:, None] - x, np.linalg.inv(h), new[:, None] - x)
    truth = np.log(np.exp(-inner / 2).mean(1) / (2 * np.pi * np.sqrt(np.linalg.det(h))))
    for scale in (1.0, 2.0**300):
        made = KernelDensity(h * scale**2).fit(x * scale)
        np.testing.assert_allclose(made.score_samples(new * scale) + 2 * np.log(scale), truth, rtol=1e-9)
    np.testing.assert_allclose(KernelDensity(0.3 * np.cov(x.T, bias=True)).fit(x).tail_index_,
                               KernelDensity(0.3**0.5).fit(x).tail_index_)  # fmt: skip
    for wrong in (np.eye(3), [[1.0, 0.5], [0.0, 1.0]], np.ones((2, 2)), -np.eye(2), [0.5, 0.5], [[np.nan, 0], [0, 1]]):
        with pytest.raises(Refused, match="bandwidth"):
            KernelDensity(wrong).fit(x)


def test_hills_index_is_that_of_weights_with_a_known_tail() -> None:
    # Squared distances to 0 whose e^(-r / 2) are uniform to the power -1 / a have the index a.
    rng = np.random.default_rng(4)
    for a in (0.7, 3.0):
        squares = 2 / a * np.log(rng.random(20000)) + 100
        z = np.sqrt(np.maximum(squares, 0))[:, None]
        assert tail_index(np.vstack([[[0.0]], z]), 1.0, every=30000) == pytest.approx(a, rel=0.3)
    assert tail_index(np.zeros((5, 2)), 1.0) == np.inf


def test_the_best_width_has_the_greatest_likelihood_of_points_left_out() -> None:
    z = np.random.default_rng(1).standard_normal((60, 2))

    def likelihood(log: float) -> float:
        rest = [log_sums(z[i : i + 1], np.delete(z, i, 0), np.exp(log))[0] for i in range(60)]
        return -float(np.mean(rest) - 2 * log)

    exact = np.exp(minimize_scalar(likelihood, bounds=(-3, 1), method="bounded").x)
    assert best_width(z) == pytest.approx(exact, rel=0.02)
    assert best_width(np.vstack([z, z])) == pytest.approx(best_width(z), rel=1e-9)


def test_thresholds_are_where_sums_are_of_few_points() -> None:
    n, d = 3000, 30
    rng = np.random.default_rng(2)
    found = thresholds(n, d)
    assert found["best"] < found["few"] < found["noise"] < found["limit"]
    assert found["limit"] == pytest.approx(np.sqrt(2) * found["few"])
    x, new = rng.standard_normal((n, d)), rng.standard_normal((40, d))

    def points(width: float) -> float:
        plain, squares = (log_sums(new, x, each) for each in (width, width / np.sqrt(2)))
        return float(np.median(np.exp(2 * plain - squares)))

    assert points(found["few"]) < 12
    assert points(1.3 * found["limit"]) > 60
    # In one dimension of many points the widths are far below the spread, and far above the gaps.
    assert thresholds(10**6, 1)["limit"] < 1e-3


def test_rules() -> None:
    assert rule_of_thumb("scott", 1000, 2) == pytest.approx(1000 ** (-1 / 6))
    assert rule_of_thumb("silverman", 1000, 2) == pytest.approx(rule_of_thumb("scott", 1000, 2))
    x = np.random.default_rng(3).standard_normal((50, 4))
    for rule in ("scott", "silverman", "large-dim"):
        assert KernelDensity(rule).fit(x).bandwidth_ == rule_of_thumb(rule, 50, 4)


def test_regimes_and_the_best_width_in_many_dimensions() -> None:
    rng = np.random.default_rng(4)
    assert KernelDensity().fit(rng.standard_normal((300, 1))).regime_ == "classical"
    wide, new = rng.standard_normal((600, 50)), rng.standard_normal((200, 50))
    fits = {rule: KernelDensity(rule, shape="round").fit(wide) for rule in ("loo", "large-dim", "scott")}
    assert {fitted.regime_ for fitted in fits.values()} == {"few-points"}
    scores = {rule: fitted.score(new) for rule, fitted in fits.items()}
    assert scores["loo"] > scores["scott"]
    assert scores["large-dim"] > scores["scott"]


def test_binned_is_exact_far_out_too() -> None:
    x = np.random.default_rng(5).standard_normal((200, 2))
    new = np.vstack([x[:20], [[30.0, -40.0]]])
    exact, binned = (KernelDensity(0.4, binned=b).fit(x).score_samples(new) for b in (False, True))
    np.testing.assert_allclose(binned, exact, atol=1e-3)
    assert binned[-1] == exact[-1]


def test_what_cannot_be_met_is_refused() -> None:
    x = np.random.default_rng(6).standard_normal((10, 4))
    for options, data, words in (
        ({"bandwidth": "wide"}, x, "bandwidth='wide'"),
        ({"bandwidth": -1.0}, x, "positive"),
        ({"shape": "star"}, x, "shape='star'"),
        ({"binned": True}, x, "in 4 dimensions"),
        ({}, x[:3], "span 2 of 4"),
        ({"shape": "diagonal"}, np.ones((3, 2)), "constant"),
    ):
        with pytest.raises(Refused, match=words):
            KernelDensity(**options).fit(data)
