"""The best items for a query by few calls of an expensive scorer: columns of a matrix of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.cur import cur_core
from eckart.linalg.solution import Solution
from eckart.sketching.contract import sketch

Scorer = Callable[[int, Dense], Any]
"""(query, items (b,)) -> their scores (b,), larger is better: what costs."""


def _low_rank_scores(generator: np.random.Generator) -> dict[str, Any]:
    """Scores of rank 3 of 20 training queries and 4 others on 50 items."""
    left, right = generator.standard_normal((24, 3)), generator.standard_normal((3, 50))
    scores = left @ right
    return {"training": scores[:20], "scorer": lambda q, i: scores[20 + q][i], "queries": 4, "k": 3, "budget": 12}


@sketch(
    "anncur",
    paper="Yadav et al. 2022, arXiv 2210.12579",
    gives="the k best items of each query that were scored, and the calls",
    error="none of what is returned, which is scored exactly; recall is not known beforehand",
    problem=_low_rank_scores,
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
    if rcond is None and ridge is None:
        rcond = 1e-2
    rng = generator_of(generator)
    each = np.diff(np.linspace(0, count, rounds + 1).astype(int))
    first = rng.choice(m, each[0], replace=False)
    shared = cur_core(r[:, first], rcond=rcond, ridge=ridge) @ r
    found, calls = np.empty((queries, k), np.int64), 0
    for query in range(queries):
        index, scores, embedded = first, np.asarray(scorer(query, first), np.float64), shared
        sizes = [*each[1:], budget - count]
        for later, size in enumerate(sizes, 1 - len(sizes)):
            guess = scores @ embedded
            guess[index] = -np.inf
            more = np.lexsort((np.arange(m), -guess))[:size]
            if size:
                scores = np.concatenate([scores, np.asarray(scorer(query, more), np.float64)])
                index = np.concatenate([index, more])
            if later < 0:
                embedded = cur_core(r[:, index], rcond=rcond, ridge=ridge) @ r
        calls += len(index)
        found[query] = index[np.lexsort((index, -scores))[:k]]
    return Solution(back(found, training), True, rounds, message=f"{r.size} calls for R", calls=calls)
