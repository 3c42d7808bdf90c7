"""Samples of rows by scores: their probabilities, what they keep, and how well."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.leverage import leverage_scores, lp_sensitivities
from eckart.sketching.lp_sensitivity import lp_sample


def heavy() -> np.ndarray:
    return np.random.default_rng(0).standard_t(1.5, (120, 3))


def test_rows_come_as_often_as_their_scores_say() -> None:
    a = heavy()
    expected = {
        "sensitivity": lp_sensitivities(a, 1.5),
        "root-leverage": leverage_scores(a) ** 0.75,
        "leverage": leverage_scores(a),
        "uniform": np.ones(120),
    }
    for name, scores in expected.items():
        found = [lp_sample(a, 10, 1.5, scores=name, generator=seed) for seed in range(3)]
        for each in found:
            q = each.weights**-1.5
            cut = q < 1
            if cut.any():
                ratio = q[cut] / scores[each.index[cut]]
                np.testing.assert_allclose(ratio, ratio[0])


def test_all_rows_are_kept_with_weight_one_where_asked_for() -> None:
    for scores in ("lewis", "mixed", "uniform"):
        found = lp_sample(heavy(), 120, 3.0, scores=scores)
        assert len(found.index) == 120
        assert (found.weights == 1).all()


def test_lewis_weights_beat_chance_and_norms_are_kept_in_the_mean() -> None:
    a, x = heavy(), np.random.default_rng(1).standard_normal((3, 50))
    exact = np.abs(a @ x).sum(0)
    worst, sums = {}, {}
    for scores in ("lewis", "uniform"):
        found = [lp_sample(a, 40, 1, scores=scores, generator=seed) for seed in range(150)]
        norms = np.array([(f.weights[:, None] * np.abs(a[f.index] @ x)).sum(0) for f in found])
        worst[scores], sums[scores] = np.median(np.abs(norms / exact - 1).max(1)), norms[:, 0]
    assert worst["lewis"] < 0.7 * worst["uniform"]
    # Beyond 5 standard errors once in 2 million.
    assert abs(sums["lewis"].mean() - exact[0]) < 5 * sums["lewis"].std() / 150**0.5


def test_rotations_of_the_columns_change_nothing() -> None:
    a, t = heavy(), np.random.default_rng(2).standard_normal((3, 3))
    one, other = lp_sample(a, 20, generator=1), lp_sample(a @ t, 20, generator=1)
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5)
    with pytest.raises(Refused, match="scores='best': unknown"):
        lp_sample(a, 20, scores="best")  # type: ignore[arg-type]
