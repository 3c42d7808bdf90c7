"""Determinantal draws against the probabilities of all sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.linalg.projection_dpp import orthonormal, projection_dpp


def test_every_set_is_as_likely_as_its_squared_volume() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2))
    q = orthonormal(x)
    chances = {s: np.linalg.det(q[list(s)]) ** 2 for s in combinations(range(6), 2)}
    assert sum(chances.values()) == pytest.approx(1)
    rng, draws = np.random.default_rng(1), 1500
    counts = dict.fromkeys(chances, 0)
    for _ in range(draws):
        counts[tuple(sorted(projection_dpp(x, rng).tolist()))] += 1
    # 15 sets beyond 5 standard deviations: one in 100 000.
    for s, chance in chances.items():
        assert abs(counts[s] - draws * chance) < 5 * (draws * chance * (1 - chance)) ** 0.5 + 1


def test_duplicates_never_come_together_and_all_features_are_spanned() -> None:
    x = np.repeat(np.vander(np.linspace(-1, 1, 8), 5), 2, axis=0)
    for seed in range(20):
        index = projection_dpp(x * [1e8, 1, 1e-8, 1, 1], seed)
        assert len(set((index // 2).tolist())) == 5
    assert sorted(projection_dpp(np.eye(3), 0).tolist()) == [0, 1, 2]


def test_dependent_features_are_refused() -> None:
    for bad in (np.ones((4, 2)), np.ones((2, 3)), np.zeros((3, 1)), np.full((3, 1), np.nan)):
        with pytest.raises(Refused):
            projection_dpp(bad)
