"""A graph with few edges and nearly the same Laplacian, kept so while edges come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import DisjointSet
from scipy.linalg import eigh
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.sparse.linalg import LinearOperator, eigsh

from eckart.arrays import Array, Dense, Seed, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.graphs import LaplacianSolver, adjacency, edges_of, non_backtracking_walks
from eckart.scikit.base import Estimator, generator_from
from eckart.scikit.door import check_is_fitted
from eckart.scikit.files import rebuilds_by_attributes
from eckart.scikit.planted import Planted
from eckart.sketching.contract import estimates, sketch

_SMALL = 400


class _Kept:
    """A graph G and its sparsifier H, changed edge by edge; see `SpectralSparsifier`."""

    def __init__(self, distortion: float, walkers: int, steps: int, generator: Seed) -> None:
        if not distortion > 0 or walkers < 1 or steps < 1:
            raise Refused(f"distortion={distortion}, walkers={walkers}, steps={steps} are above zero")
        self._distortion, self._walkers, self._steps = distortion, walkers, steps
        self._rng = generator_of(generator)
        self.graph = self.sparsifier = sparse.csr_array((0, 0))

    def fit(self, graph: Array) -> _Kept:
        """Starts from the spanning forest of largest weights, and inserts the other edges in random order."""
        self.graph = adjacency(graph, symmetric=True)
        self.graph = sparse.csr_array(self.graph - sparse.diags_array(self.graph.diagonal()))
        self.graph.eliminate_zeros()
        if not self.graph.nnz:
            self.sparsifier = self.graph.copy()
            return self
        inverse = self.graph.copy()
        inverse.data = 1 / inverse.data
        forest = sparse.csr_array(minimum_spanning_tree(inverse))
        forest.data = 1 / forest.data
        self.sparsifier = sparse.csr_array(forest + forest.T)
        u, v, weight = edges_of(self.graph)
        tree = np.asarray(self.sparsifier[u, v]).ravel() > 0
        order = self._rng.permutation(np.flatnonzero(~tree))
        batch = max(1, len(u) // 64)
        for start in range(0, len(order), batch):
            e = order[start : start + batch]
            self._offer(u[e], v[e], weight[e])
        return self

    def insert(self, edges: Array, weights: Array) -> None:
        ends, w = self._edges(edges), dense(weights, "the weights", ndim=1)
        if len(w) != len(ends) or (len(w) and not w.min() > 0):
            raise Refused(f"{len(ends)} edges have as many weights, above zero; got {len(w)}")
        u, v = ends[:, 0], ends[:, 1]
        there = np.asarray(self.sparsifier[u, v]).ravel() > 0 if len(u) else np.zeros(0, bool)
        self.graph = self._added(self.graph, u, v, w)
        self.sparsifier = self._added(self.sparsifier, u[there], v[there], w[there])
        self._offer(u[~there], v[~there], w[~there])

    def delete(self, edges: Array) -> None:
        ends = self._edges(edges)
        u, v = ends[:, 0], ends[:, 1]
        if len(u) and not (np.asarray(self.graph[u, v]).ravel() > 0).all():
            raise Refused("an edge is to be deleted that is not in the graph")
        self.graph, self.sparsifier = self._without(self.graph, u, v), self._without(self.sparsifier, u, v)
        _, parts = sparse.csgraph.connected_components(self.sparsifier, directed=False)
        a, b, w = edges_of(self.graph)
        across = parts[a] != parts[b]
        if across.any():
            a, b, w = a[across], b[across], w[across]
            # The heaviest edges that join the parts: a spanning forest of the graph of parts.
            order = np.lexsort((np.arange(len(w)), -w))
            joined = _forest(parts[a[order]], parts[b[order]], int(parts.max()) + 1)
            e = order[joined]
            self.sparsifier = self._added(self.sparsifier, a[e], b[e], w[e])
        near = np.unique(ends)
        a, b, w = edges_of(self.graph)
        touched = (np.isin(a, near) | np.isin(b, near)) & ~(np.asarray(self.sparsifier[a, b]).ravel() > 0)
        self._offer(a[touched], b[touched], w[touched])

    def _offer(self, u: Dense, v: Dense, w: Dense) -> None:
        if not len(u):
            return
        many = np.repeat(np.arange(len(u)), self._walkers)
        far = self._distortion / w
        length = non_backtracking_walks(
            self.sparsifier, u[many], v[many], longest=float(far.max()), steps=self._steps, rng=self._rng
        )
        needed = length.reshape(len(u), -1).min(1) > far
        self.sparsifier = self._added(self.sparsifier, u[needed], v[needed], w[needed])

    def _edges(self, edges: Array) -> Dense:
        ends = np.asarray(edges)
        n = self.graph.shape[0]
        if ends.size == 0:
            return np.zeros((0, 2), np.int64)
        if ends.ndim != 2 or ends.shape[1] != 2 or ends.dtype.kind not in "iu" or ends.min() < 0 or ends.max() >= n:
            raise Refused(f"edges of shape {ends.shape} and {ends.dtype} are no pairs of nodes in 0..{n - 1}")
        if (ends[:, 0] == ends[:, 1]).any():
            raise Refused(f"an edge of node {ends[ends[:, 0] == ends[:, 1]][0, 0]} to itself has no resistance")
        return ends.astype(np.int64)

    def _added(self, graph: sparse.csr_array, u: Dense, v: Dense, w: Dense) -> sparse.csr_array:
        half = sparse.coo_array((w, (u, v)), shape=graph.shape)
        return sparse.csr_array(graph + half + half.T)

    def _without(self, graph: sparse.csr_array, u: Dense, v: Dense) -> sparse.csr_array:
        gone = sparse.coo_array((np.ones(len(u)), (u, v)), shape=graph.shape)
        left = sparse.csr_array(graph - graph.multiply((gone + gone.T) > 0))
        left.eliminate_zeros()
        return left


def _forest(a: Dense, b: Dense, count: int) -> Dense:
    """Which edges, taken in turn, join two parts that were not joined yet."""
    parts = DisjointSet(range(count))
    kept = [e for e, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)) if parts.merge(i, j)]
    return np.array(kept, np.int64)


def relative_condition(graph: Array, sparsifier: Array) -> float:
    """The largest over the smallest eigenvalue of L_H^+ L_G but for zeros; Inf if H falls apart further than G."""
    g, h = LaplacianSolver(graph), LaplacianSolver(sparsifier)
    if g.count != h.count or (g.component != h.component).any():
        return float("inf")
    if not len(g.free):
        return 1.0
    # One node of each component held at zero: quotients do not change where a constant is added to x.
    first, second = g.grounded, h.grounded
    if len(g.free) < _SMALL:
        spectrum = eigh(first.toarray(), second.toarray(), eigvals_only=True)
        return float(spectrum[-1] / spectrum[0])
    return _largest(first, second, h.solve_grounded) * _largest(second, first, g.solve_grounded)


def _largest(first: Any, second: Any, solve: Callable[[Dense], Dense]) -> float:
    """The largest x^T A x / x^T B x, B^-1 being `solve`."""
    start = np.random.default_rng(0).standard_normal(first.shape[0])
    inverse = LinearOperator(first.shape, matvec=solve)
    found = eigsh(first, 1, M=second, Minv=inverse, v0=start, which="LA", tol=1e-4, return_eigenvectors=False)
    return float(found[0])


def _grid(generator: np.random.Generator) -> dict[str, Any]:
    """A grid of 8 x 8 nodes with random weights and diagonals."""
    place = np.indices((8, 8)).reshape(2, -1).T
    near = np.abs(place[:, None] - place).max(-1) == 1
    weights = np.triu(near * generator.uniform(0.5, 2, near.shape), 1)
    return {"graph": weights + weights.T}


def _all_edges(rng: np.random.Generator) -> Planted:
    """No distortion is allowed: every edge stays."""
    given = _grid(rng) | {"distortion": 1e-9}
    return Planted(given, lambda found: np.abs(found.toarray() - given["graph"]).max(), 1e-12)


@sketch(
    "spectral-sparsifier",
    paper="Yuan, Aghdaei and Feng 2025 (dyGRASS), arXiv 2505.02741",
    gives="the sparsifier (n, n)",
    error="none is promised; `SpectralSparsifier.condition_number` computes it",
    problem=_grid,
    limit=_all_edges,
)
def sparsify_graph(
    graph: Array, *, distortion: float = 10.0, walkers: int = 64, steps: int = 100, generator: Seed = None
) -> sparse.csr_array:
    """A spanning forest of a graph and the edges between whose ends walks in it find no short way.

    Walks never turn back; each adds the resistances 1/w on its path, and an edge stays out where one arrives within
    `distortion` over its weight. Edges are tested in batches against what was kept before them. `SpectralSparsifier`
    goes on with edges that come and go.

    Args:
        graph: A (n, n), undirected, sparse or dense, weights above zero.
        distortion: from which resistance times weight on an edge is needed.
        walkers: for each edge.
        steps: of a walk at most.
        generator: of the order and of the walks.

    Returns:
        H (n, n) in compressed rows, a subgraph with the same components.
    """
    return _Kept(distortion, walkers, steps, generator).fit(graph).sparsifier


rebuilds_by_attributes("graph_and_sparsifier", _Kept)


def _two_grids(rng: np.random.Generator) -> Planted:
    """A grid of 8 x 8 nodes with random weights and diagonals, of which at least a third of the edges can go."""
    given = _grid(rng)["graph"]

    def error(fitted: SpectralSparsifier) -> float:
        return max(float(fitted.sparsifier_.nnz / fitted.graph_.nnz) - 2 / 3, fitted.condition_number() / 100 - 1)

    return Planted({"X": given}, error, 0.0)


@estimates("spectral-sparsifier", kind="graph", planted=_two_grids)
class SpectralSparsifier(Estimator):
    """A sparsifier H of a graph G, changed edge by edge.

    An edge is left out if a walk in H from one end to the other has a resistance of at most `distortion` over its
    weight. H always has the components of G. A change copies the arrays of both graphs.

    Args:
        distortion: resistance along H times weight, from which on an edge is needed.
        walkers: walks that look for it, for each edge.
        steps: of a walk at most.
        random_state: of the order and of the walks.

    Attributes:
        kept_: G and H.
    """

    def __init__(
        self,
        distortion: float = 10.0,
        *,
        walkers: int = 64,
        steps: int = 100,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.distortion = distortion
        self.walkers = walkers
        self.steps = steps
        self.random_state = random_state

    def fit(self, X: Array, y: Any = None) -> SpectralSparsifier:
        """Starts from the spanning forest of largest weights of the graph X (n, n), and inserts the other edges."""
        graph = self._table(X, fit=True, accept_sparse="csr")
        self.kept_ = _Kept(self.distortion, self.walkers, self.steps, generator_from(self.random_state)).fit(graph)
        return self

    def insert(self, edges: Array, weights: Array) -> SpectralSparsifier:
        """Adds edges (m, 2) to G, and to H those that it lacks; weights of edges that there are add up."""
        self._pair.insert(edges, weights)
        return self

    def delete(self, edges: Array) -> SpectralSparsifier:
        """Takes edges (m, 2) from G and H; where H falls apart and G does not, edges of G join its parts again."""
        self._pair.delete(edges)
        return self

    @property
    def graph_(self) -> sparse.csr_array:
        """A of G (n, n)."""
        return self._pair.graph

    @property
    def sparsifier_(self) -> sparse.csr_array:
        """A of H (n, n), a subgraph of G."""
        return self._pair.sparsifier

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.pairwise = tags.input_tags.positive_only = True
        return tags

    def condition_number(self) -> float:
        """The largest over the smallest x^T L_G x / x^T L_H x, over x that is constant on no component's whole."""
        return relative_condition(self.graph_, self.sparsifier_)

    @property
    def _pair(self) -> _Kept:
        check_is_fitted(self, "kept_")
        return self.kept_
