"""FastRP against dense powers, and what it does with nodes of its own kind."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

from eckart.errors import Refused
from eckart.sketching.fastrp import FastRP, node_embedding, sparse_signs


def graph(n: int = 12, seed: int = 0) -> np.ndarray:
    drawn = np.triu(np.random.default_rng(seed).random((n, n)) < 0.4, 1).astype(float)
    return drawn + drawn.T


def test_it_is_the_weighted_sum_of_dense_powers() -> None:
    a, weights, beta = graph(), (0.5, 0.0, 2.0), -0.5
    degree = a.sum(1)
    start = (degree / degree.mean())[:, None] ** beta * sparse_signs(12, 7, 1 / 3, np.random.default_rng(3))
    expected = np.zeros((12, 7))
    for k, weight in enumerate(weights, 1):
        power = np.linalg.matrix_power(a / degree[:, None], k) @ start
        expected += weight * power / np.linalg.norm(power, axis=1, keepdims=True)
    for given in (a, sparse.coo_array(a), sparse.csc_matrix(a)):
        np.testing.assert_allclose(
            node_embedding(given, 7, weights=weights, beta=beta, generator=3), expected, rtol=1e-12, atol=1e-14
        )


def test_signs_keep_inner_products_in_the_mean() -> None:
    drawn = sparse_signs(6, 40_000, 0.2, np.random.default_rng(0))
    np.testing.assert_allclose(drawn @ drawn.T / 40_000, np.eye(6), atol=0.05)


def test_float32_stays_what_it_is_and_one_power_is_held() -> None:
    a, options = sparse.csr_array(graph(200)), {"weights": (0.5, 0.0, 2.0), "beta": -0.5, "generator": 3}
    exact, found = node_embedding(a, 7, **options), node_embedding(a.astype(np.float32), 7, **options)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=1e-5)
    fitted = FastRP(7, random_state=3, weights=(0.5, 0.0, 2.0), beta=-0.5).fit(a.astype(np.float32))
    assert fitted.powers_.dtype == np.float32
    np.testing.assert_allclose(fitted.transform(a.astype(np.float32)), exact, atol=1e-5)
    ring, peaks = sparse.csr_array(sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(4000, 4000))), {}
    for count in (2, 12):
        for kind in (np.float64, np.float32):
            tracemalloc.start()
            node_embedding(ring.astype(kind), 64, weights=[1.0] * count, generator=0)
            peaks[count, kind] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peaks[12, np.float64] < 1.1 * peaks[2, np.float64]
    assert peaks[12, np.float32] < 0.7 * peaks[12, np.float64]


def test_what_a_node_is_by_itself_has_a_weight() -> None:
    a, signs = graph(), sparse_signs(12, 7, 1 / 3, np.random.default_rng(3))
    without, found = (node_embedding(a, 7, self_weight=w, generator=3) for w in (0.0, 0.3))
    own = signs / np.maximum(np.linalg.norm(signs, axis=1, keepdims=True), 1e-300)
    np.testing.assert_allclose(found - without, 0.3 * own, atol=1e-12)
    plain = node_embedding(a, 7, weights=(1.0,), self_weight=2.0, normalize=False, generator=3)
    np.testing.assert_allclose(plain, a / a.sum(1, keepdims=True) @ signs + 2 * signs, atol=1e-12)


def test_nodes_without_edges_are_zero_and_all_else_is_finite() -> None:
    a = graph()
    a[4] = a[:, 4] = 0
    found = node_embedding(a, 5, generator=1)
    assert np.isfinite(found).all()
    assert not found[4].any()
    assert np.abs(found).sum(1)[np.arange(12) != 4].all()
    for kind in (np.float64, np.float32):
        assert not node_embedding(np.zeros((3, 3), kind), 5, generator=1).any()
        assert node_embedding(sparse.csr_array((0, 0), dtype=kind), 5, generator=1).shape == (0, 5)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (np.ones((2, 3)), {}, "not square"),
        (-np.ones((2, 2)), {}, "weighs -1"),
        (np.full((2, 2), np.nan), {}, "NaN"),
        (np.ones((2, 2)), {"components": 0}, "components=0"),
        (np.ones((2, 2)), {"generator": np.random.RandomState(0)}, "RandomState"),
    ],
)
def test_what_is_no_graph_is_refused(given: np.ndarray, options: dict[str, object], words: str) -> None:
    with pytest.raises(Refused, match=words):
        node_embedding(given, **options)  # type: ignore[arg-type]


def test_the_estimator_is_the_function_and_embeds_new_nodes_by_their_edges() -> None:
    a, options = graph(), {"weights": (0.5, 0.0, 2.0), "beta": -0.5}
    fitted = FastRP(7, random_state=3, **options).fit(sparse.csr_array(a))
    np.testing.assert_allclose(fitted.transform(a), node_embedding(a, 7, generator=3, **options), rtol=1e-12)
    assert fitted.powers_.shape == (2, 12, 7)
    new = np.zeros((1, 12))
    new[0, [1, 4]] = 1, 3
    reached = [(power[1] + 3 * power[4]) / 4 for power in fitted.powers_]
    expected = sum(w * r / np.linalg.norm(r) for w, r in zip((0.5, 2.0), reached, strict=True))
    np.testing.assert_allclose(fitted.transform(new)[0], expected, rtol=1e-12)
    with pytest.raises(Refused, match="density=2"):
        FastRP(density=2).fit(a)


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(Refused, match="give no embedding"):
        node_embedding(np.ones((4, 4)), components=2, weights=(0.0, 0.0))
    with pytest.raises(Refused, match="give no embedding"):
        FastRP(2, weights=(0.0,)).fit(np.ones((4, 4)))
