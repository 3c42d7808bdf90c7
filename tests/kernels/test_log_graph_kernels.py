"""Proximities of nodes: their formulas, limits, logarithms to their own digits, and where logarithms help."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import expm
from sklearn.metrics import adjusted_rand_score

from eckart.errors import Refused
from eckart.kernels._graph import _as_walks, _entrywise
from eckart.kernels._walks import tail
from eckart.kernels.log_graph_kernels import (
    PROXIMITIES,
    Graph,
    GraphKernel,
    choose_t,
    parameter,
    proximity,
    sweep,
)
from eckart.linalg.kernel_k_means import kernel_k_means


def weighted(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < 0.4, 1) * rng.uniform(0.5, 2.0, (n, n))
    upper[0, 1:] = 0.3  # connected
    return upper + upper.T


def blocks(seed: int, n: int = 100) -> tuple[np.ndarray, np.ndarray]:
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    upper = np.triu(rng.random((n, n)) < np.where(y[:, None] == y, 0.3, 0.15), 1).astype(float)
    return upper + upper.T, y


def written_out(a: np.ndarray, kind: str, t: float) -> np.ndarray:
    d, one = np.diag(a.sum(0)), np.eye(len(a))
    root = np.diag(np.where(a.sum(0) > 0, a.sum(0), 1.0) ** -0.5)
    times = np.linalg.pinv(d - a)
    return {
        "Walk": lambda: np.linalg.inv(one - t * a),
        "Comm": lambda: expm(t * a),
        "For": lambda: np.linalg.inv(one + t * (d - a)),
        "Heat": lambda: expm(-t * (d - a)),
        "NHeat": lambda: expm(-t * root @ (d - a) @ root),
        "PPR": lambda: np.linalg.inv(d - t * a),
        "CT": lambda: times,
        "SCT": lambda: 1 / (1 + np.exp(-t * times / times.std())),
    }[kind]()


@pytest.mark.parametrize("kind", PROXIMITIES)
def test_formulas(kind: str) -> None:
    a = weighted(15)
    graph = Graph(sparse.csr_array(a))
    t = parameter(graph, kind, 0.6)
    expected = written_out(a, kind, t)
    np.testing.assert_allclose(proximity(graph, kind, t).numpy(), expected, rtol=1e-10, atol=1e-12)
    if kind != "CT":
        np.testing.assert_allclose(proximity(graph, kind, t, log=True).numpy(), np.log(expected), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", [kind for kind in PROXIMITIES if kind not in ("CT", "SCT")])
def test_logarithms_keep_their_digits_along_a_path(kind: str) -> None:
    n = 24
    a = np.diag(np.ones(n - 1), 1)
    graph, t = Graph(a + a.T), 0.01
    log = proximity(graph, kind, t, log=True).numpy()
    assert log.min() < -40
    # On a path every walk from one end to the other passes all between: the logarithm of walks adds up there.
    if kind in ("Walk", "For", "PPR"):
        through = log[0, 10] + log[10, -1] - log[10, 10]
        assert log[0, -1] == pytest.approx(through, rel=1e-12)
    near = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 2
    np.testing.assert_allclose(log[near], np.log(proximity(graph, kind, t).numpy()[near]), rtol=1e-8)


def test_nodes_renumbered_are_proximities_renumbered() -> None:
    a = weighted(12, 1)
    order = np.random.default_rng(2).permutation(12)
    for kind in PROXIMITIES:
        one = proximity(Graph(a), kind, 0.1).numpy()
        other = proximity(Graph(a[order][:, order]), kind, 0.1).numpy()
        np.testing.assert_allclose(other, one[order][:, order], atol=1e-10)


def test_parts_and_nodes_without_edges() -> None:
    a = np.zeros((5, 5))
    a[0, 1] = a[1, 0] = a[2, 3] = a[3, 2] = 1.0
    np.testing.assert_allclose(proximity(Graph(a), "CT", 1.0).numpy(), written_out(a, "CT", 1.0), atol=1e-12)
    assert proximity(Graph(a), "NHeat", 1.0)[4, 4] == 1
    assert proximity(Graph(np.zeros((1, 1))), "Walk", 0.3).item() == 1
    for kind, log, words in (("Heat", True, "3 components"), ("PPR", False, "node 4 has no edge")):
        with pytest.raises(Refused, match=words):
            proximity(Graph(a), kind, 0.5, log=log)


def test_t_is_learned_through_plain_and_log() -> None:
    a = weighted(8, 3)
    for log in (False, True):
        kernel = GraphKernel(a, "For", 0.4, log=log)
        kernel(torch.arange(8)).sum().backward()
        step = 1e-6
        up, down = (GraphKernel(a, "For", 0.4 * np.exp(s), log=log)(np.arange(8)).sum() for s in (step, -step))
        assert float(kernel.log_t.grad) == pytest.approx((up - down) / (2 * step), rel=1e-6)


def test_a_logarithm_says_that_it_is_not_definite() -> None:
    kernel = GraphKernel(weighted(10), "Comm", 0.5, log=True)
    assert not kernel.psd
    assert np.linalg.eigvalsh(kernel(np.arange(10)))[0] < 0


def test_logarithms_find_blocks_where_plain_ones_depend_on_t() -> None:
    a, y = blocks(0)
    scores: dict[bool, list[float]] = {False: [], True: []}
    for _, log, _, k in sweep(a, ("Comm",), (0.1, 0.3, 0.5)):
        labels = kernel_k_means(k, 2, generator=0, restarts=3).value
        scores[log].append(adjusted_rand_score(y, labels))
    assert np.median(scores[True]) > np.median(scores[False]) + 0.3
    t, labels = choose_t(a, 2, shares=(0.1, 0.4), generator=0)
    assert t in [parameter(Graph(a), "Comm", share) for share in (0.1, 0.4)]
    assert adjusted_rand_score(y, labels) > 0.6


def test_what_cannot_be_met_is_refused() -> None:
    a = weighted(6)
    for make, words in (
        (lambda: GraphKernel(a, "Jump"), "kind='Jump'"),
        (lambda: GraphKernel(np.triu(a)), "directed"),
        (lambda: GraphKernel(a, "Walk", 10.0)(np.arange(6)), "below 1 / rho"),
        (lambda: GraphKernel(a, "PPR", 1.0)(np.arange(6)), "between 0 and 1"),
        (lambda: GraphKernel(a, "Comm", 1e3)(np.arange(6)), "take its logarithm"),
        (lambda: GraphKernel(a, "CT", log=True)(np.arange(6)), "negative entries"),
        (lambda: GraphKernel(a)(np.array([0, 6])), "the graph has 0 to 5"),
        (lambda: GraphKernel(a)(np.array([0.5])), "hand in their numbers"),
        (lambda: GraphKernel(np.zeros((0, 0))), "without nodes"),
        (lambda: parameter(Graph(a), "Walk", 1.0), "share=1.0"),
    ):
        with pytest.raises(Refused, match=words):
            make()
    assert np.isfinite(GraphKernel(a, "Comm", 1e3, log=True)(np.arange(6))).all()


def test_short_walks_are_summed_where_eigenvalues_lose_their_digits() -> None:
    a = np.zeros((9, 9))
    a[0, 1:8] = a[1:8, 0] = 1.0
    a[7, 8] = a[8, 7] = 1e-5
    graph = Graph(a)
    for kind, share in (("Walk", 0.1), ("Comm", 0.05), ("Heat", 0.05), ("For", 0.05), ("NHeat", 0.01), ("PPR", 0.01)):
        t = torch.tensor(parameter(graph, kind, share), dtype=torch.float64)
        walks, series, s = _as_walks(graph, kind, t)
        assert walks.enough(series, float(s))
        exact = _entrywise(graph, kind, t)
        torch.testing.assert_close(proximity(graph, kind, t, log=True), exact, rtol=0, atol=1e-8)
    np.testing.assert_allclose(tail("exponential", torch.tensor([-3.0, 0.0, 2.0]).double(), 2)[[0, 2]],
                               [np.exp(-3) - 1 + 3, np.exp(2) - 3], rtol=1e-14)  # fmt: skip
