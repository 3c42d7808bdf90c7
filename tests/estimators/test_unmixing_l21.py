"""Unmixing: its quadratic programs by hand, and bands that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators.unmixing_l21 import (
    RobustUnmixing,
    band_weights,
    low_rank_weights,
    mixing_level,
    robust_unmixing,
)


def mixed(rng: np.random.Generator, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, abundances with pure ones among them, and endmembers."""
    bands = np.linspace(0, 1, 25)
    endmembers = np.array([1.2 + np.sin(6 * bands), 0.3 + bands, np.exp(-30 * (bands - 0.4) ** 2) + 0.1])
    abundances = np.concatenate([np.eye(3), rng.dirichlet(np.ones(3), 120)])
    x = abundances @ endmembers
    return np.abs(x + noise * rng.standard_normal(x.shape)), abundances, endmembers


def matched(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Rows of what was found in the order of the true ones."""
    return found[np.square(found[:, None] - true).sum(-1).argmin(0)]


def test_pure_pixels_without_noise_give_everything_back() -> None:
    x, abundances, endmembers = mixed(np.random.default_rng(0))
    fitted = RobustUnmixing(3, tol=1e-2).fit(x)
    np.testing.assert_allclose(matched(fitted.components_, endmembers), endmembers, atol=1e-4)
    order = [int(np.square(fitted.components_ - true).sum(1).argmin()) for true in endmembers]
    np.testing.assert_allclose(fitted.transform(x)[:, order], abundances, atol=1e-3)
    np.testing.assert_allclose(fitted.transform(x).sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(x)), x, atol=1e-4)


def test_outlying_bands_cost_squares_everything_and_norms_nothing() -> None:
    rng = np.random.default_rng(1)
    x, _, endmembers = mixed(rng, 0.005)
    clean = RobustUnmixing(3).fit(x).components_
    x[:, [4, 19]] = rng.uniform(0, 5, (len(x), 2))
    kept = np.setdiff1d(np.arange(25), [4, 19])

    def error(components: np.ndarray) -> float:
        return float(np.abs(matched(components[:, kept], endmembers[:, kept]) - endmembers[:, kept]).mean())

    fitted = RobustUnmixing(3).fit(x)
    assert error(fitted.components_) < 1.3 * error(clean) + 0.005
    assert error(RobustUnmixing(3, robust=False).fit(x).components_) > 5 * error(fitted.components_)
    assert fitted.band_weights_[[4, 19]].max() < 0.1 * np.median(fitted.band_weights_)


def test_the_weighted_squares_touch_the_norms_from_above() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.standard_normal((30, 6)), rng.standard_normal((30, 6))
    weights = band_weights(one)

    def majorant(residual: np.ndarray) -> float:
        return float(weights @ np.square(residual).sum(0) / 2 + np.linalg.norm(one, axis=0).sum() / 2)

    assert majorant(one) == pytest.approx(np.linalg.norm(one, axis=0).sum())
    assert majorant(other) >= np.linalg.norm(other, axis=0).sum()


def test_weights_without_a_start_find_what_does_not_follow_the_others() -> None:
    rng = np.random.default_rng(3)
    for shape in ((60, 20), (20, 60)):
        x = rng.uniform(0, 1, (shape[0], 2)) @ rng.uniform(0, 1, (2, shape[1])) + 0.001 * rng.standard_normal(shape)
        x[:, 7] = rng.uniform(0, 9, shape[0])
        weights = low_rank_weights(x, 2)
        assert weights.argmin() == 7
        assert weights[7] < 0.01 * np.median(weights)


def test_the_objective_falls_without_a_penalty() -> None:
    x, _, _ = mixed(np.random.default_rng(4), 0.05)
    history = np.array(robust_unmixing(x, 3, tolerance=1e-6, max_iter=40).history)
    assert len(history) > 5
    assert (np.diff(history) <= 1e-6 * history[0]).all()


def test_a_penalty_makes_mixed_pixels_sparser() -> None:
    x, _, _ = mixed(np.random.default_rng(5), 0.05)
    plain, sparse = (RobustUnmixing(3, sparsity=s, sum_to_one=False, tol=1e-2).fit(x).transform(x) for s in (0.0, 0.02))
    assert mixing_level(sparse).mean() > mixing_level(plain).mean()
    assert mixing_level(np.array([[1.0, 0, 0], [1, 1, 1], [0, 0, 0]])).tolist() == pytest.approx([1, 0, 0])


def test_what_cannot_be_met_is_refused() -> None:
    with pytest.raises(Refused, match="1 entries of X are below 0"):
        RobustUnmixing().fit(np.array([[1.0, -1.0], [2.0, 3.0]]))
    with pytest.raises(Refused, match="3 corners are asked for, of n_samples = 2"):
        RobustUnmixing(3).fit(np.ones((2, 4)))
    with pytest.raises(Refused, match="sparsity=-1"):
        RobustUnmixing(sparsity=-1).fit(np.ones((2, 4)))
