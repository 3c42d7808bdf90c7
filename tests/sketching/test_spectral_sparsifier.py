"""Sparsifiers: components, condition numbers, insertions and deletions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from eckart.errors import Refused
from eckart.linalg.graphs import edges_of, laplacian
from eckart.scikit.files import load, save
from eckart.sketching import spectral_sparsifier as module
from eckart.sketching.spectral_sparsifier import SpectralSparsifier, relative_condition, sparsify_graph


def grid(side: int = 9) -> sparse.csr_array:
    place = np.indices((side, side)).reshape(2, -1).T
    near = np.abs(place[:, None] - place).max(-1) == 1
    weights = np.triu(near * np.random.default_rng(0).uniform(0.5, 2, near.shape), 1)
    return sparse.csr_array(weights + weights.T)


def test_it_is_a_subgraph_with_the_components_of_the_graph() -> None:
    a = sparse.csr_array(sparse.block_diag([grid(6), grid(5), sparse.csr_array((2, 2))]))
    h = sparsify_graph(a, generator=0)
    assert connected_components(h)[0] == connected_components(a)[0] == 4
    assert abs(h - h.T).max() == 0
    assert abs(h - a.multiply(h > 0)).max() < 1e-12
    assert h.nnz < a.nnz


def test_fewer_edges_with_larger_distortion_and_better_than_chance() -> None:
    a = grid()
    kappa, count = {}, {}
    for distortion in (2.0, 30.0):
        h = sparsify_graph(a, distortion=distortion, generator=0)
        kappa[distortion], count[distortion] = relative_condition(a, h), h.nnz
    assert count[30.0] < count[2.0]
    assert kappa[2.0] < kappa[30.0]
    inverse = a.copy()
    inverse.data = 1 / inverse.data
    forest = minimum_spanning_tree(inverse)
    tree = sparse.csr_array(a.multiply((forest + forest.T) > 0))
    assert tree.nnz == 2 * 80
    u, v, w = edges_of(a)
    off = np.flatnonzero(np.asarray(tree[u, v]).ravel() == 0)
    others = []
    for seed in range(5):
        e = np.random.default_rng(seed).choice(off, (count[2.0] - tree.nnz) // 2, replace=False)
        half = sparse.coo_array((w[e], (u[e], v[e])), shape=a.shape)
        others.append(relative_condition(a, tree + half + half.T))
    assert kappa[2.0] < np.median(others)


def test_condition_numbers_of_large_and_small_graphs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    a = grid()
    h = sparsify_graph(a, generator=0)
    g, l = laplacian(a).toarray()[1:, 1:], laplacian(h).toarray()[1:, 1:]
    values = eigh(g, l, eigvals_only=True)
    assert relative_condition(a, h) == pytest.approx(values[-1] / values[0])
    monkeypatch.setattr(module, "_SMALL", 1)
    assert relative_condition(a, h) == pytest.approx(values[-1] / values[0], rel=1e-2)
    assert relative_condition(a, a) == pytest.approx(1, rel=1e-3)
    assert relative_condition(a, sparse.csr_array(a.shape)) == np.inf


def test_edges_that_come_and_go() -> None:
    made = SpectralSparsifier(distortion=5.0, random_state=0).fit(grid())
    made.insert([[0, 80], [3, 44]], [1.0, 2.0])
    assert made.graph_[80, 0] == 1
    assert made.sparsifier_[0, 80] == 1
    rng = np.random.default_rng(1)
    for _ in range(6):
        u, v, _ = edges_of(made.sparsifier_)
        pick = rng.choice(len(u), 15, replace=False)
        made.delete(np.stack([u[pick], v[pick]], 1))
        assert connected_components(made.sparsifier_)[0] == connected_components(made.graph_)[0]
        assert not np.asarray(made.graph_[u[pick], v[pick]]).any()
        extra = made.sparsifier_ - made.graph_.multiply(made.sparsifier_ > 0)
        assert abs(extra).max() < 1e-12
    assert made.condition_number() < 1e3
    with pytest.raises(Refused, match="not in the graph"):
        made.delete([[0, 40]])
    with pytest.raises(Refused, match="no pairs of nodes"):
        made.insert([[0, 99]], [1.0])
    with pytest.raises(Refused, match="distortion=0"):
        SpectralSparsifier(distortion=0).fit(grid())
    with pytest.raises(Refused, match="walkers"):
        SpectralSparsifier(walkers=2.5).fit(grid())  # type: ignore[arg-type]


def test_it_follows_scikit_learn() -> None:
    base = pytest.importorskip("sklearn.base")
    made = SpectralSparsifier(5.0, walkers=8, random_state=3)
    with pytest.raises(ValueError, match="not fitted"):
        made.insert([[0, 1]], [1.0])
    again = base.clone(made).set_params(steps=50)
    assert again.get_params() == {"distortion": 5.0, "walkers": 8, "steps": 50, "random_state": 3}
    assert not hasattr(base.clone(made.fit(grid())), "kept_")
    expected = sparsify_graph(grid(), distortion=5.0, walkers=8, generator=3)
    assert abs(made.sparsifier_ - expected).max() == 0


def test_a_graph_without_edges_stays_one() -> None:
    for n in (0, 1, 3):
        assert sparsify_graph(np.zeros((n, n)), generator=0).nnz == 0


def test_a_saved_sparsifier_goes_on(tmp_path: Path) -> None:
    made = SpectralSparsifier(5.0, walkers=8, random_state=3).fit(grid())
    save(made, tmp_path / "graph")
    loaded = load(tmp_path / "graph")
    u, v, _ = edges_of(made.sparsifier_)
    for each in (made, loaded):
        each.insert([[0, 80], [3, 44]], [1.0, 2.0]).delete(np.stack([u[:9], v[:9]], 1))
    assert abs(loaded.sparsifier_ - made.sparsifier_).max() == 0


def test_an_edge_of_a_node_to_itself_is_refused() -> None:
    fitted = SpectralSparsifier(random_state=0).fit(np.ones((5, 5)) - np.eye(5))
    with pytest.raises(Refused, match="an edge of node 3 to itself"):
        fitted.insert([[0, 1], [3, 3]], [1.0, 1.0])
