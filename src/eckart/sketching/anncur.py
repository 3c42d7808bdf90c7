"""The best items for a query by few calls of an expensive scorer: columns of a matrix of scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.cur import cur_core
from eckart.linalg.solution import Solution
from eckart.scikit.base import Estimator, at_least_one, generator_from, opened, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from eckart.scikit.planted import Planted
from eckart.sketching.contract import estimates, sketch

Scorer = Callable[[int, Dense], Any]
"""(query, items (b,)) -> their scores (b,), larger is better: what costs."""


def _low_rank_scores(generator: np.random.Generator) -> dict[str, Any]:
    """Scores of rank 3 of 20 training queries and 4 others on 50 items."""
    left, right = generator.standard_normal((24, 3)), generator.standard_normal((3, 50))
    scores = left @ right
    return {"training": scores[:20], "scorer": lambda q, i: scores[20 + q][i], "queries": 4, "k": 3, "budget": 12}


def _all_items(rng: np.random.Generator) -> Planted:
    """As many anchors as items: every score is known."""
    given = _low_rank_scores(rng)
    best = [np.argsort(-given["scorer"](query, np.arange(50))) for query in range(4)]
    return Planted({**given, "k": 50, "anchors": 50, "budget": 50}, lambda found: (found.value != best).mean(), 0.0)


@sketch(
    "anncur",
    paper="Yadav et al. 2022, arXiv 2210.12579",
    gives="the k best items of each query that were scored, and the calls",
    error="none of what is returned, which is scored exactly; recall is not known beforehand",
    problem=_low_rank_scores,
    limit=_all_items,
)
def search_by_cur(
    training: Array,
    scorer: Scorer,
    queries: int,
    *,
    k: int,
    budget: int,
    anchors: int | None = None,
    rounds: int = 1,
    rcond: float | None = None,
    ridge: float | None = None,
    generator: Seed = None,
) -> Solution[Array]:
    """Searches for the items with the largest scores by a CUR decomposition of the matrix of all scores.

    With J the anchor items, a query's scores on all items are about c U R, c = its scores on J and U = R[:, J]^+; the
    items that look best are scored exactly. U drops singular values below 1/100 of the first unless told otherwise: the
    published 1e-15 costs recall where there are nearly as many anchors as training queries. With several rounds the
    anchors of later rounds are those that look best so far (ADACUR, arXiv 2305.02996).

    Args:
        training: R (k_q, m), the scores of training queries on all m items: k_q m calls, made beforehand.
        scorer: (query, items) -> scores.
        queries: how many; the scorer is called with 0 to queries - 1.
        k: items that are wanted of each.
        budget: calls for each query, at least k.
        anchors: of these calls; half by default.
        rounds: in which the anchors are chosen.
        rcond: of U; or
        ridge: of U.
        generator: of the anchors of the first round, the same for all queries.

    Raises:
        Refused: numbers that do not fit together, or a scorer that gives others than a finite number for each item.

    Returns:
        (queries, k) items, the best first, ties by index; `calls` counts the scorer's pairs, and the message those that
        R took.
    """
    r = dense(training, "the training scores")
    m = r.shape[1]
    count = budget // 2 if anchors is None else anchors
    if not (1 <= k <= budget <= m and 1 <= count <= budget and 1 <= rounds <= count and queries >= 0):
        raise Refused(
            f"k={k}, anchors={count}, budget={budget}, rounds={rounds} for {m} items: k and anchors are at most "
            "the budget, which is at most the items"
        )
    core = _Core(r, rcond, ridge)
    sizes = _sizes(count, rounds, budget)
    first = generator_of(generator).choice(m, sizes[0], replace=False)
    found, _, calls = _best(core, core.of(first), first, sizes[1:], scorer, queries, k)
    return Solution(back(found, training), True, rounds, message=f"{r.size} calls for R", calls=calls)


def _sizes(count: int, rounds: int, budget: int) -> list[int]:
    """How many items each round scores, the last of them those that look best when all anchors are known."""
    return [*np.diff(np.linspace(0, count, rounds + 1).astype(int)).tolist(), budget - count]


@dataclass(frozen=True)
class _Core:
    """Estimates of scores on all items from those on some, c U R."""

    scores: Dense
    rcond: float | None
    ridge: float | None

    def of(self, index: Dense) -> Dense:
        """U R (|J|, m) for items J; singular values are cut at 1/100 of the first where nothing is said of them."""
        rcond = 1e-2 if self.rcond is None and self.ridge is None else self.rcond
        found: Dense = cur_core(self.scores[:, index], rcond=rcond, ridge=self.ridge) @ self.scores
        return found


def _best(
    core: _Core, shared: Dense, first: Dense, sizes: list[int], scorer: Scorer, queries: int, k: int
) -> tuple[Dense, Dense, int]:
    """The k best items (queries, k) of those that are scored, their scores, and the calls."""
    m = core.scores.shape[1]
    found, best, calls = np.empty((queries, k), np.int64), np.empty((queries, k)), 0
    for query in range(queries):
        index, scores, embedded = first, _asked(scorer, query, first), shared
        for later, size in enumerate(sizes, 1 - len(sizes)):
            guess = scores @ embedded
            guess[index] = -np.inf
            more = np.lexsort((np.arange(m), -guess))[:size]
            if size:
                scores = np.concatenate([scores, _asked(scorer, query, more)])
                index = np.concatenate([index, more])
            if later < 0:
                embedded = core.of(index)
        calls += len(index)
        order = np.lexsort((index, -scores))[:k]
        found[query], best[query] = index[order], scores[order]
    return found, best, calls


def _asked(scorer: Scorer, query: int, index: Dense) -> Dense:
    """The scores (b,) of some items for a query; Refused where there are others than real numbers, one an item."""
    found = np.asarray(scorer(query, index))
    if found.shape != index.shape or found.dtype.kind not in "biuf":
        raise Refused(f"the scorer gave {found.dtype} of shape {found.shape} for {len(index)} items: a number for each")
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).sum())
        raise Refused(f"the scorer gave NaN or Inf for {bad} of {len(index)} items: give the worst a finite number")
    return found.astype(np.float64)


def _points(rng: np.random.Generator) -> Planted:
    """Points in three dimensions, whose squared distances are a matrix of rank five."""
    x = rng.standard_normal((40, 3))
    exact = -np.square(x[:, None] - x).sum(-1)

    def error(fitted: CURSearch) -> float:
        found = fitted.kneighbors(x[:9], 4, budget=16)[1]
        best = np.argsort(-exact[:9], axis=1, kind="stable")[:, :4]
        return float((np.sort(found) != np.sort(best)).mean() + np.abs(fitted.transform(x) - exact).max())

    return Planted({"X": x}, error, 1e-6, {"n_anchors": 8, "rcond": 1e-10})


@estimates("anncur", kind="transformer", planted=_points)
class CURSearch(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """The items with the largest scores for a query, by few calls of a scorer that is expensive.

    X holds the items (items, features), and queries are rows of as many features: numbers that the scorer reads,
    vectors or a single column of indices into texts. `fit` scores training queries on all items, which costs their
    product in calls; `kneighbors` scores each query on its budget, and `transform` on the anchors. See `search_by_cur`.

    Args:
        scorer: (queries (b, features), items (b, features)) -> scores (b,), larger is better; None for the negative
            squared distance, which costs nothing. A file holds no function: set it to None before `save`.
        n_anchors: items that every query is scored on.
        n_queries: training queries that are drawn of X where `fit` is given none.
        rounds: in which anchors are chosen, beyond the first by how good they look.
        rcond: singular values of R[:, J] below this share of the first are dropped; 1e-2 by default; or
        ridge: as in `linalg.cur.cur_core`.
        random_state: of the anchors, and of the training queries.

    Attributes:
        items_: X.
        scores_: R (training queries, items).
        anchors_: J.
        embedding_: U R (anchors, items).
        calls_: pairs that `fit` scored.
    """

    def __init__(
        self,
        scorer: Callable[[Dense, Dense], Any] | None = None,
        *,
        n_anchors: int = 50,
        n_queries: int = 100,
        rounds: int = 1,
        rcond: float | None = None,
        ridge: float | None = None,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.scorer = scorer
        self.n_anchors = n_anchors
        self.n_queries = n_queries
        self.rounds = rounds
        self.rcond = rcond
        self.ridge = ridge
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, queries: Any = None) -> CURSearch:
        """Scores training queries (k_q, features), some of X by default, on all items X (items, features); itself."""
        self.items_ = self._table(X, fit=True)
        at_least_one(n_anchors=self.n_anchors, n_queries=self.n_queries, rounds=self.rounds)
        m, rng = len(self.items_), generator_from(self.random_state)
        self.anchors_ = rng.choice(m, min(self.n_anchors, m), replace=False)
        if self.rounds > len(self.anchors_):
            raise Refused(f"rounds={self.rounds} of {len(self.anchors_)} anchors: each has one at least")
        drawn = self.items_[rng.permutation(m)[: self.n_queries]] if queries is None else self._queries(queries)
        self.scores_ = dense(np.array([self._scored(query, np.arange(m)) for query in drawn]), "the training scores")
        self.calls_ = int(self.scores_.size)
        self.embedding_ = self._core.of(self.anchors_)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Estimated scores (queries, items) of queries X (queries, features), by as many calls each as anchors."""
        known = [self._scored(query, self.anchors_) for query in self._table(X)]
        return dense(np.array(known), "the scores") @ self.embedding_

    def kneighbors(self, X: Any, n_neighbors: int = 5, *, budget: int | None = None) -> tuple[Dense, Dense]:
        """The items that score best of those that are scored.

        Args:
            X: queries (queries, features).
            n_neighbors: items for each.
            budget: calls for each, at most; twice the anchors by default.

        Returns:
            Scores and indices of items, (queries, n_neighbors) both, the best first.

        Raises:
            Refused: the budget holds not as many items as anchors, or neighbours, or there are fewer items.
        """
        table = self._table(X)
        m, count = len(self.items_), len(self.anchors_)
        most = min(m, 2 * count if budget is None else budget)
        at_least_one(n_neighbors=n_neighbors, budget=most)
        if not max(n_neighbors, count) <= most:
            raise Refused(f"n_neighbors={n_neighbors} and {count} anchors are more than {most} calls, of {m} items")
        first, *later = _sizes(count, self.rounds, most)
        anchors = self.anchors_[:first]
        shared = self.embedding_ if self.rounds == 1 else self._core.of(anchors)
        index, scores, _ = _best(
            self._core, shared, anchors, later, lambda q, i: self._scored(table[q], i), len(table), n_neighbors
        )
        return scores, index

    @property
    def _core(self) -> _Core:
        return _Core(self.scores_, self.rcond, self.ridge)

    def _queries(self, queries: Any) -> Dense:
        found = dense(opened(queries), "the queries")
        if not len(found) or found.shape[1] != self.items_.shape[1]:
            raise Refused(f"queries of shape {found.shape}: one at least, of {self.items_.shape[1]} features as items")
        return found

    def _scored(self, query: Dense, index: Dense) -> Dense:
        items = self.items_[index]
        pairs, score = np.broadcast_to(query, items.shape), _nearness if self.scorer is None else self.scorer
        return _asked(lambda *_: score(pairs, items), 0, index)

    @property
    def _n_features_out(self) -> int:
        return len(self.items_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _nearness(queries: Dense, items: Dense) -> Dense:
    with np.errstate(over="ignore"):
        found: Dense = -np.square(queries - items).sum(1)
    return found
