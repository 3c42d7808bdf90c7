"""Scores of edges against their formula, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.linalg.graphs import edges_of
from eckart.sketching.teddy import sparsify_edges, teddy_scores


def graph(n: int = 14) -> np.ndarray:
    rng = np.random.default_rng(0)
    drawn = np.triu((rng.random((n, n)) < 0.5) * rng.random((n, n)), 1)
    drawn[3] = drawn[:, 3] = 0
    return drawn + drawn.T + np.diag(np.r_[1.0, np.zeros(n - 1)])


def test_scores_are_the_formula() -> None:
    a = graph()
    u, v, _ = edges_of(sparse.csr_array(a))
    neighbours = [[j for j in range(14) if a[i, j] and j != i] for i in range(14)]
    t = [sum(len(neighbours[j]) ** -0.5 for j in near) / len(near) if near else 0 for near in neighbours]
    expected = [t[i] * t[j] / len(neighbours[i]) / len(neighbours[j]) for i, j in zip(u, v, strict=True)]
    np.testing.assert_allclose(teddy_scores(sparse.csr_array(a), u, v), expected)


@pytest.mark.parametrize("score", ["teddy", "degree", "resistance", "random"])
def test_what_is_kept_is_symmetric_and_as_much_as_asked(score: str) -> None:
    a = graph()
    count = len(edges_of(sparse.csr_array(a))[0])
    for keep in (0.0, 0.3, 1.0):
        h = sparsify_edges(a, keep, score=score, generator=0).toarray()
        assert (h == h.T).all()
        assert (h[h > 0] == a[h > 0]).all()
        assert np.count_nonzero(np.triu(h, 1)) == round(keep * count)
        assert h[0, 0] == 1
    np.testing.assert_array_equal(sparsify_edges(a, 1.0, score=score).toarray(), a)


def test_names_of_nodes_do_not_matter_and_degrees_can_be_kept() -> None:
    a, order = graph(), np.random.default_rng(1).permutation(14)
    np.testing.assert_array_equal(
        sparsify_edges(a[np.ix_(order, order)], 0.5).toarray(), sparsify_edges(a, 0.5).toarray()[np.ix_(order, order)]
    )
    h = sparsify_edges(a, 0.1, min_degree=1).toarray() > 0
    np.testing.assert_array_equal((h & ~np.eye(14, dtype=bool)).any(1), (a > 0).sum(1) - np.r_[1, np.zeros(13)] > 0)
    with pytest.raises(Refused, match="keep=2"):
        sparsify_edges(a, 2)
    with pytest.raises(Refused, match="directed"):
        sparsify_edges(np.triu(a), 0.5)
