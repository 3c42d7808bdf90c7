"""Graphs against their dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.linalg.graphs import laplacian, non_backtracking_walks, normalized
from eckart.linalg.resistances import effective_resistance


def graph(n: int = 12, seed: int = 0) -> np.ndarray:
    """Two components and a node alone."""
    rng = np.random.default_rng(seed)
    drawn = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.9), 1)
    drawn[: n // 2, n // 2 :] = 0
    drawn[:, -1] = 0
    return drawn + drawn.T


def test_operators() -> None:
    a = graph()
    d = a.sum(1)
    safe, near = np.where(d > 0, d, 1), sparse.coo_array(a)
    np.testing.assert_allclose(normalized(a).toarray(), a / safe[:, None])
    np.testing.assert_allclose(normalized(near, "symmetric").toarray(), a / np.sqrt(np.outer(safe, safe)))
    np.testing.assert_allclose(laplacian(a + np.eye(12)).toarray(), np.diag(d) - a)


def test_resistances_are_those_of_the_pseudoinverse() -> None:
    a = graph()
    u, v = map(np.ravel, np.indices((12, 12)))
    plus = np.linalg.pinv(laplacian(a).toarray())
    expected = plus[u, u] + plus[v, v] - plus[u, v] - plus[v, u]
    expected[(u < 6) != (v < 6)] = np.inf
    expected[((u == 11) | (v == 11)) & (u != v)] = np.inf
    np.testing.assert_allclose(effective_resistance(a, u, v, block=50), expected, atol=1e-10)
    near = effective_resistance(a, u, v, rtol=0.3, generator=0)
    # 663 projections: a standard deviation of 5.5 %.
    np.testing.assert_allclose(near, expected, rtol=0.3, atol=1e-12)
    path = sparse.diags_array([np.ones(4)], offsets=[1], shape=(5, 5))
    assert effective_resistance(path + path.T, [0], [4]) == pytest.approx(4)


def test_walks_do_not_turn_back() -> None:
    rng = np.random.default_rng(0)
    ring = np.roll(np.eye(6), 1, axis=1)
    both = sparse.csr_array(ring + ring.T)
    found = non_backtracking_walks(both, np.zeros(50, int), np.full(50, 2), longest=100, steps=9, rng=rng)
    assert set(found.tolist()) == {2.0, 4.0}
    path = sparse.csr_array(np.diag(np.full(3, 2.0), 1) + np.diag(np.full(3, 2.0), -1))
    found = non_backtracking_walks(path, np.full(60, 1), np.full(60, 3), longest=100, steps=9, rng=rng)
    assert set(found.tolist()) == {1.0, np.inf}
    assert not non_backtracking_walks(path, np.ones(2, int), np.ones(2, int), longest=1, steps=1, rng=rng).any()


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(Refused, match="directed"):
        laplacian(np.triu(np.ones((3, 3))))
    with pytest.raises(Refused, match="weighs -1"):
        normalized(-np.eye(2))
    with pytest.raises(Refused, match="not square"):
        normalized(np.ones((2, 3)))
