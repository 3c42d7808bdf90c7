"""Search by few scores: exact where it must be, and the calls that it counts are those it makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.sketching.anncur import CURSearch, search_by_cur


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


def test_the_estimator_is_the_function_and_counts_its_calls() -> None:
    rng = np.random.default_rng(0)
    items, queries, known = rng.standard_normal((80, 4)), rng.standard_normal((6, 4)), rng.standard_normal((30, 4))
    pairs: list[int] = []

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        assert left.shape == right.shape
        pairs.append(len(left))
        return (left * right).sum(1) + np.cos(left * right).sum(1)

    for rounds in (1, 3):
        pairs.clear()
        search = CURSearch(product, n_anchors=9, rounds=rounds, random_state=5).fit(items, queries=known)
        assert search.calls_ == sum(pairs) == 80 * 30
        pairs.clear()
        scores, index = search.kneighbors(queries, 7, budget=20)
        assert sum(pairs) == 6 * 20
        exact = np.array([product(np.broadcast_to(q, items.shape), items) for q in queries])
        np.testing.assert_array_equal(scores, np.take_along_axis(exact, index, 1))
        assert (np.diff(scores, axis=1) <= 0).all()
        scorer = Scorer(exact)
        options = {"k": 7, "budget": 20, "anchors": 9, "rounds": rounds}
        if rounds == 1:
            np.testing.assert_array_equal(index, search_by_cur(search.scores_, scorer, 6, generator=5, **options).value)


def test_texts_are_searched_by_their_indices_and_what_cannot_be_is_refused() -> None:
    words = ["".join(each) for each in itertools.product("ab", repeat=6)]

    def alike(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        pairs = zip(left[:, 0].astype(int), right[:, 0].astype(int), strict=True)
        return np.array([sum(p == q for p, q in zip(words[i], words[j], strict=True)) for i, j in pairs])

    places = np.arange(len(words))[:, None]
    search = CURSearch(alike, n_anchors=12, rcond=1e-9, random_state=0).fit(places)
    scores, index = search.kneighbors(places, 1, budget=13)
    np.testing.assert_array_equal(index[:, 0], places[:, 0])
    assert (scores == 6).all()
    assert search.transform(places).shape == (64, 64)
    with pytest.raises(Refused, match="12 anchors are more than 8 calls"):
        search.kneighbors(places, 1, budget=8)
    with pytest.raises(Refused, match="n_neighbors=70"):
        search.kneighbors(places, 70, budget=64)
    with pytest.raises(Refused, match="rounds=4 of 3 anchors"):
        CURSearch(alike, n_anchors=3, rounds=4).fit(places)
    with pytest.raises(Refused, match="of 1 features as items"):
        search.fit(places, queries=np.ones((2, 2)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda found: np.where(np.arange(len(found)) % 3, found, np.nan), "NaN or Inf for"),
        (lambda found: found[:-1], "for 8 items: a number for each"),
        (lambda found: found + 1j, "complex128"),
    ],
)
def test_a_scorer_gives_a_number_for_each_item(given: Callable[[np.ndarray], np.ndarray], said: str) -> None:
    x = np.random.default_rng(0).standard_normal((30, 3))
    fitted = CURSearch(lambda q, i: -np.square(q - i).sum(1), n_anchors=8, random_state=0).fit(x)
    fitted.scorer = lambda q, i: given(-np.square(q - i).sum(1))
    with pytest.raises(Refused, match=said):
        fitted.kneighbors(x[:2], 3, budget=16)
