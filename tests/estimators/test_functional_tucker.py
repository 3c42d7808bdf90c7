"""Functional Tucker decompositions: their messages and moments written out, their bound, and what is between."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators.functional_tucker import FunctionalTucker, tucker_of_functions
from eckart.linalg.khatri_rao import contracted, paired, second_moments, summed, unpaired
from eckart.linalg.turns import best_turn


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.integers(0, n, 60) / n for n in (8, 7, 5)], axis=1)
    return x, np.sin(5 * x[:, 0]) * x[:, 1] + x[:, 2] + 0.05 * rng.standard_normal(60)


def test_moments_of_products_are_sums_over_all_entries() -> None:
    rng = np.random.default_rng(0)
    core, n = rng.standard_normal((2, 3, 2)), 5
    means = [rng.standard_normal((n, r)) for r in core.shape]
    np.testing.assert_allclose(contracted(core, means)[:, 0], np.einsum("abc,na,nb,nc->n", core, *means))
    np.testing.assert_allclose(contracted(core, means, 1), np.einsum("abc,na,nc->nb", core, means[0], means[2]))
    np.testing.assert_allclose(
        summed(means, means[0][:, 0]), np.einsum("n,na,nb,nc->abc", means[0][:, 0], *means).ravel()
    )
    half = rng.standard_normal((12, 12))
    second = half @ half.T
    np.testing.assert_array_equal(unpaired(paired(second, core.shape), core.shape), second)
    squares = [second_moments(m, np.zeros((n, m.shape[1], m.shape[1]))) for m in means]
    rows = np.einsum("na,nb,nc->nabc", *means).reshape(n, -1)
    np.testing.assert_allclose(contracted(paired(second, core.shape), squares)[:, 0], (rows @ second * rows).sum(1))


def test_no_turn_near_the_best_one_is_better() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 3, 9))
    p, f, n, m = a @ a.T, b @ b.T, 20, 6

    def cost(t: np.ndarray) -> float:
        back = np.linalg.inv(t)
        logs = (m - n) * np.linalg.slogdet(t)[1]
        return float(np.trace(t @ p @ t.T) / 2 + np.trace(back.T @ f @ back) / 2 + logs)

    best = best_turn(p, f, n, m)
    for _ in range(20):
        assert cost(best) < cost(best + 1e-3 * rng.standard_normal((3, 3)))


def test_the_bound_never_falls_and_turns_save_sweeps() -> None:
    x, y = data()
    y = (y - y.mean()) / y.std()
    ours = tucker_of_functions(x, y, (2, 2, 2), generator=np.random.default_rng(0), tolerance=0, max_iter=15)
    assert all(b >= a - 1e-9 for a, b in pairwise(ours.history))
    damped = tucker_of_functions(
        x, y, (2, 2, 2), generator=np.random.default_rng(0), tolerance=0, max_iter=15, damping=0.5
    )
    assert ours.history[-1] > damped.history[-1]


def test_predictions_are_those_of_the_posterior_and_far_away_the_mean() -> None:
    x, y = data()
    fitted = FunctionalTucker(2, random_state=0).fit(x, y)
    said, deviation = fitted.predict(x, return_std=True)
    assert np.sqrt(np.mean(np.square(said - y))) < 0.1
    assert np.mean(np.abs(said - y) < 2 * deviation) > 0.9
    far, wide = fitted.predict(x + 1e6, return_std=True)
    np.testing.assert_allclose(far, y.mean())
    assert wide.min() > deviation.max()
    # An affine change of a coordinate, and of the targets, changes nothing else.
    other = FunctionalTucker(2, random_state=0).fit(x * [2.0, 64.0, 0.5] + [8, 0, -4], 4 * y + 1)
    np.testing.assert_allclose(other.predict(x * [2.0, 64.0, 0.5] + [8, 0, -4]), 4 * said + 1, rtol=1e-6)


def test_what_cannot_be_met_is_refused() -> None:
    x, y = data()
    for options, words in (
        ({"ranks": (2, 2)}, "for 3 modes"),
        ({"ranks": 7}, "at most 256"),
        ({"kernel": "rbf"}, "kernel='rbf'"),
        ({"damping": 1.0}, r"damping=1\.0"),
        ({"length_scale": 0.0}, "length_scale=0.0"),
    ):
        with pytest.raises(Refused, match=words):
            FunctionalTucker(**options).fit(x, y)
