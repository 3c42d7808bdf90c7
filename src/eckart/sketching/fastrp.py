"""Embeddings of a graph's nodes: powers of its walk, applied to random signs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from scipy import sparse

from eckart.arrays import Array, Dense, Seed, back, generator_of, power_of_two, rows
from eckart.errors import Refused
from eckart.ops.sparse_product import sparse_product
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import ClassNamePrefixFeaturesOutMixin, TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted
from eckart.sketching.contract import estimates, sketch

_ROWS = 4096
"""Rows of signs that are drawn at once."""


def sparse_signs(
    n: int, d: int, density: float, generator: np.random.Generator, kind: type[np.floating[Any]] = np.float64
) -> Dense:
    """R (n, d), zero but for a share `density` that is +-1 / sqrt(density): E R R^T = d I. Achlioptas 2003."""
    signs, size = np.zeros((n, d), kind), density**-0.5
    for at in range(0, n, _ROWS):
        drawn, part = generator.random((min(_ROWS, n - at), d)), signs[at : at + _ROWS]
        part[drawn < density] = size
        part[drawn < density / 2] = -size
    return signs


def walk_powers(walk: sparse.csr_array, start: Dense, count: int) -> Iterator[Dense]:
    """S U, S^2 U, ..., S^count U, of which one is held; of a node without edges the rows are zero.

    Args:
        walk: S = D^-1 A (n, n).
        start: U (n, d).
        count: powers.
    """
    power = start
    for _ in range(count):
        power = _step(walk, power)
        yield power


def _step(walk: sparse.csr_array, power: Dense) -> Dense:
    """S U; in float32 by torch's sums over bags of rows, which take half of SciPy's time."""
    if power.dtype == np.float64:
        found: Dense = walk @ power
        return found
    parts = (torch.from_numpy(each) for each in (walk.data, walk.indices, walk.indptr, power.T))
    return sparse_product(*parts).numpy().T


def _precision(adjacency: Any) -> type[np.floating[Any]]:
    """Float32 where a graph comes in that or in less of a floating kind."""
    kind = str(getattr(adjacency, "dtype", "")).rpartition(".")[2]
    return np.float32 if kind in ("float32", "float16", "bfloat16") else np.float64


def _walk(adjacency: sparse.csr_array, kind: type[np.floating[Any]]) -> tuple[sparse.csr_array, Dense]:
    """D^-1 A, rows without edges zero; and the degrees."""
    degree = np.asarray(adjacency.sum(1)).ravel()
    inverse = np.where(degree > 0, 1 / np.where(degree > 0, degree, 1), 0)
    each = adjacency.data * np.repeat(inverse, np.diff(adjacency.indptr))
    return sparse.csr_array((each.astype(kind), adjacency.indices, adjacency.indptr), shape=adjacency.shape), degree


def _weight(degree: Dense, beta: float) -> Dense:
    """Degrees by their mean to a power; 1 where there are no edges."""
    linked = degree > 0
    mean = degree[linked].mean() if linked.any() else 1.0
    found: Dense = np.where(linked, degree / mean, 1) ** beta
    return found


def _start(degree: Dense, d: int, density: float, beta: float, rng: np.random.Generator, kind: Any) -> Dense:
    """D^beta R (n, d); degrees are by their mean, so that the scale is that of R."""
    signs = sparse_signs(len(degree), d, density, rng, kind)
    if beta:
        signs *= _weight(degree, beta)[:, None].astype(kind)
    return signs


def _ones(power: Dense) -> Dense:
    """Rows of length 1, or zero."""
    length = np.sqrt(np.einsum("ij,ij->i", power, power))[:, None]
    return power / np.where(length > 0, length, 1)


def _ring(generator: np.random.Generator) -> dict[str, Any]:
    """A ring of 40 nodes with 40 chords."""
    n = 40
    ends = np.concatenate([np.stack([np.arange(n), np.roll(np.arange(n), 1)]), generator.integers(0, n, (2, n))], 1)
    graph = sparse.coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(n, n)).tocsr()
    return {"adjacency": graph + graph.T, "components": 8}


def _everybody(rng: np.random.Generator) -> Planted:
    """All nodes know all, themselves too: a step leads to the mean, and all powers are the same unit vector."""

    def error(found: Dense) -> float:
        return float(np.abs(found @ found.T - 4).max())

    return Planted({"adjacency": np.full((12, 12), 3.0), "components": 5}, error, 1e-10)


@sketch(
    "fastrp",
    paper="Chen et al. 2019, arXiv 1908.11512",
    gives="embeddings (n, d)",
    error="of inner products of weighted powers, as 1/sqrt(d)",
    problem=_ring,
    limit=_everybody,
)
def node_embedding(
    adjacency: Array,
    components: int = 128,
    *,
    weights: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    beta: float = 0.0,
    density: float = 1 / 3,
    normalize: bool = True,
    self_weight: float = 0.0,
    generator: Seed = None,
) -> Array:
    """Embeds the nodes of a graph by products of its walk with random signs: sum_k w_k (D^-1 A)^k D^beta R.

    One power is held at a time, in float32 where A comes in that.

    Args:
        adjacency: A (n, n), sparse or dense, directed or not; its entries are weights of edges, not negative.
        components: d.
        weights: w_1, w_2, ... of the powers of the walk.
        beta: of the degrees D; the paper tunes it in [-1, 0].
        density: share of entries of R (n, d) that are not zero.
        normalize: rows of each power to length 1 before they are summed.
        self_weight: w_0, of D^beta R: what a node is by itself.
        generator: of R.

    Returns:
        (n, d), as dense as it is; rows of nodes without edges are zero but for their own signs.

    Raises:
        Refused: A is not square or has negative or NaN entries, or an option is out of its range.
    """
    graph = rows(adjacency, "the adjacency")
    if graph.shape[0] != graph.shape[1]:
        raise Refused(f"an adjacency of shape {graph.shape} is not square")
    graph = sparse.csr_array(graph)
    if graph.data.size and graph.data.min() < 0:
        raise Refused(f"an edge weighs {graph.data.min():.3g}; weights are not negative")
    if components < 1 or not any([self_weight, *weights]) or not 0 < density <= 1:
        raise Refused(f"components={components}, weights={list(weights)} and density={density} give no embedding")
    kind = _precision(adjacency)
    walk, degree = _walk(graph, kind)
    start = _start(degree, components, density, beta, generator_of(generator), kind)
    found = np.zeros_like(start)
    powers = chain([start], walk_powers(walk, start, len(weights)))
    for weight, power in zip([self_weight, *weights], powers, strict=True):
        if weight:
            found += kind(weight) * (_ones(power) if normalize else power)
    return back(found, np.empty(0, kind) if sparse.issparse(adjacency) else adjacency)


def _blocks(rng: np.random.Generator) -> Planted:
    """Two groups of nodes that all know each other: rows of one group are equal, those of two unrelated."""
    group = rng.permutation(np.arange(24) % 2)
    alike = (group[:, None] == group).astype(float)

    def error(fitted: FastRP) -> float:
        embedded = fitted.transform(alike)
        return float(np.abs(embedded @ embedded.T / 4 - alike).max())

    nodes = "rows and columns are the same nodes, and have one order"
    return Planted({"X": alike}, error, 0.4, varies={"order of rows": nodes, "order of columns": nodes})


@estimates("fastrp", kind="transformer", planted=_blocks)
class FastRP(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Embeds the nodes of a graph by products of its walk with random signs; new nodes by their edges to the old.

    X is the adjacency (n, n), sparse or dense, of weights that are not negative. What `node_embedding` gives comes out
    of `fit_transform`. A new node is a row of its edges to the n that were fitted, and walks along them: `transform` is
    one product, and of the fitted rows it gives what the fit gave. A weight of a node's own signs is not among the
    options, because a row of edges does not say which node it is: a loop in X does.

    Args:
        n_components: d.
        weights: w_1, w_2, ... of the powers of the walk.
        beta: of the degrees; the paper tunes it in [-1, 0].
        density: share of the signs that are not zero.
        normalize: rows of each power to length 1 before they are summed.
        random_state: of the signs.

    Attributes:
        powers_: of the walk times the signs, (those of weight not zero, n, d), in float32 where X was: a row's
            neighbours are summed in each.
    """

    def __init__(
        self,
        n_components: int = 128,
        *,
        weights: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
        beta: float = 0.0,
        density: float = 1 / 3,
        normalize: bool = True,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.weights = weights
        self.beta = beta
        self.density = density
        self.normalize = normalize
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> FastRP:
        """Walks from the random signs over the graph X (n, n); itself."""
        graph = self._graph(X, fit=True)
        at_least_one(n_components=self.n_components)
        if not any(self.weights):
            raise Refused(f"weights={list(self.weights)} give no embedding")
        if positive(density=self.density) > 1:
            raise Refused(f"density={self.density} is a share of the signs, and at most 1")
        if graph.shape[0] != graph.shape[1]:
            raise Refused(f"an adjacency of shape {graph.shape} is not square")
        kind = _precision(X)
        walk, degree = _walk(graph, kind)
        rng = generator_from(self.random_state)
        start = _start(degree, self.n_components, self.density, self.beta, rng, kind)
        powers = chain([start], walk_powers(walk, start, len(self.weights) - 1))
        kept = [power for weight, power in zip(self.weights, powers, strict=True) if weight]
        self.powers_ = np.array(kept, kind).reshape(-1, *start.shape)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Embeddings (m, d) of nodes by their edges X (m, n) to those that were fitted."""
        check_is_fitted(self)
        kind = self.powers_.dtype.type
        walk, _ = _walk(self._graph(X), kind)
        found = np.zeros((walk.shape[0], self.powers_.shape[2]), kind)
        for weight, power in zip([w for w in self.weights if w], self.powers_, strict=True):
            reached = _step(walk, power)
            found += kind(weight) * (_ones(reached) if self.normalize else reached)
        return found

    def _graph(self, X: Any, *, fit: bool = False) -> sparse.csr_array:
        graph = sparse.csr_array(self._table(X, fit=fit, accept_sparse="csr"))
        if graph.data.size and graph.data.min() < 0:
            raise Refused(f"Negative values in data: an edge weighs {graph.data.min():.3g}; weights are not negative")
        return graph / power_of_two(graph.data) if graph.data.size else graph

    @property
    def _n_features_out(self) -> int:
        return int(self.powers_.shape[2])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.pairwise = tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
