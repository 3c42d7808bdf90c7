"""Search by few scores: exact where it must be, and the calls that it counts are those it makes."""

from __future__ import annotations

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.sketching.anncur import search_by_cur


class Scorer:
    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.pairs = scores, 0

    def __call__(self, query: int, items: np.ndarray) -> np.ndarray:
        assert len(set(items.tolist())) == len(items)
        self.pairs += len(items)
        return self.scores[query, items]


def scores(rank: int = 4, noise: float = 0.0) -> tuple[np.ndarray, Scorer]:
    rng = np.random.default_rng(0)
    all_scores = rng.standard_normal((36, rank)) @ rng.standard_normal((rank, 80)) + noise * rng.standard_normal(
        (36, 80)
    )
    return all_scores[:30], Scorer(all_scores[30:])


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    best = np.argsort(-exact, axis=1)[:, : found.shape[1]]
    return float(np.mean([len(set(f) & set(b)) / len(f) for f, b in zip(found.tolist(), best.tolist(), strict=True)]))


@pytest.mark.parametrize("rounds", [1, 3])
def test_scores_of_low_rank_are_searched_exactly(rounds: int) -> None:
    training, scorer = scores()
    found = search_by_cur(training, scorer, 6, k=5, anchors=8, budget=16, rounds=rounds, rcond=1e-10, generator=0)
    np.testing.assert_array_equal(found.value, np.argsort(-scorer.scores, axis=1)[:, :5])
    assert found.calls == scorer.pairs == 6 * 16
    assert "2400 calls for R" in found.message


def test_all_items_as_anchors_are_an_exact_search() -> None:
    training, scorer = scores(noise=5.0)
    found = search_by_cur(training, scorer, 6, k=80, anchors=80, budget=80)
    np.testing.assert_array_equal(found.value, np.argsort(-scorer.scores, axis=1))


def test_dropping_small_singular_values_helps_near_as_many_anchors_as_queries() -> None:
    training, scorer = scores(noise=0.3)
    options = {"k": 5, "anchors": 30, "budget": 40}
    kept = [
        recall(search_by_cur(training, scorer, 6, rcond=r, generator=1, **options).value, scorer.scores)
        for r in (1e-15, 0.1)
    ]
    assert kept[1] > kept[0]


def test_refusals() -> None:
    training, scorer = scores()
    for options in ({"k": 5, "budget": 3}, {"k": 1, "budget": 81}, {"k": 1, "budget": 9, "rounds": 7}):
        with pytest.raises(Refused, match="budget"):
            search_by_cur(training, scorer, 2, **options)
