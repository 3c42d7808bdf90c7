"""Graphs as sparse matrices: walks and Laplacians, safe where a node has no edge."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from eckart.arrays import Dense, rows
from eckart.errors import Refused


def adjacency(a: Any, *, symmetric: bool = False) -> sparse.csr_array:
    """A (n, n) in compressed rows, float64, without stored zeros.

    Raises:
        Refused: it is not square, has negative, NaN or Inf entries, or is not symmetric where that is asked for.
    """
    graph = sparse.csr_array(rows(a, "the adjacency"))
    if graph.shape[0] != graph.shape[1]:
        raise Refused(f"an adjacency of shape {graph.shape} is not square")
    if graph.data.size and graph.data.min() < 0:
        raise Refused(f"Negative values in data: an edge weighs {graph.data.min():.3g}; weights are not negative")
    graph = graph.copy() if graph is a else graph
    graph.sum_duplicates()
    graph.eliminate_zeros()
    if symmetric and graph.shape[0] and abs(graph - graph.T).max() > 1e-12 * max(graph.max(), 0):
        raise Refused("the graph is directed, and an undirected one is needed: hand in A + A.T")
    return graph


def powers_of_degrees(degree: Dense, power: float) -> Dense:
    """degree^power, zero where there is no edge, also for negative powers."""
    return np.where(degree > 0, np.where(degree > 0, degree, 1.0) ** power, 0.0)


def normalized(a: Any, kind: Literal["walk", "symmetric"] = "walk") -> sparse.csr_array:
    """D^-1 A, or D^-1/2 A D^-1/2; rows of nodes without edges are zero."""
    graph = adjacency(a)
    degree = np.asarray(graph.sum(1)).ravel()
    if kind == "walk":
        return sparse.csr_array(sparse.diags_array(powers_of_degrees(degree, -1)) @ graph)
    root = sparse.diags_array(powers_of_degrees(degree, -0.5))
    return sparse.csr_array(root @ graph @ root)


def laplacian(a: Any) -> sparse.csr_array:
    """D - A of an undirected graph; loops have no part in it."""
    graph = adjacency(a, symmetric=True)
    graph = graph - sparse.diags_array(graph.diagonal())
    return sparse.csr_array(sparse.diags_array(np.asarray(graph.sum(1)).ravel()) - graph)


def edges_of(graph: sparse.csr_array) -> tuple[Dense, Dense, Dense]:
    """Ends u < v and weights of the edges of an undirected graph, each once, without loops."""
    upper = sparse.coo_array(sparse.triu(graph, 1))
    return upper.row.astype(np.int64), upper.col.astype(np.int64), upper.data


class LaplacianSolver:
    """L^+ b by sparse LU, one node of each component held at zero.

    Args:
        a: A (n, n), undirected.

    Attributes:
        laplacian: L.
        count: components.
        component: of each node (n,).
        free: nodes that are not held.
        grounded: L[free, free], positive definite.
    """

    def __init__(self, a: Any) -> None:
        self.laplacian = laplacian(a)
        self.count, self.component = connected_components(self.laplacian, directed=False)
        first = np.unique(self.component, return_index=True)[1]
        self.free = np.setdiff1d(np.arange(len(self.component)), first)
        self.grounded = sparse.csc_array(self.laplacian[self.free][:, self.free])
        self._share = sparse.csr_array(
            (np.ones(len(self.component)), (self.component, np.arange(len(self.component)))),
        )
        self._sizes = np.bincount(self.component)[:, None]

    @cached_property
    def _lu(self) -> Any:
        try:
            return splu(self.grounded) if len(self.free) else None
        except RuntimeError as error:
            least, most = self.grounded.diagonal().min(), self.grounded.diagonal().max()
            raise Refused(
                f"degrees from {least:.3g} to {most:.3g} leave the Laplacian singular in floating point: light edges "
                "are lost beside heavy ones"
            ) from error

    def solve_grounded(self, b: Dense) -> Dense:
        """The solution with the grounded matrix, for b of the nodes that are free."""
        found: Dense = self._lu.solve(np.ascontiguousarray(b))
        return found

    def __call__(self, b: Dense) -> Dense:
        """L^+ b for b (n, k); what of b is constant on a component is left out."""
        b = self._centred(b)
        x = np.zeros(b.shape)
        if self._lu is not None:
            x[self.free] = self.solve_grounded(b[self.free])
        return self._centred(x)

    def _centred(self, b: Dense) -> Dense:
        """b less its mean on each component."""
        found: Dense = b - (self._share @ b / self._sizes)[self.component]
        return found


def non_backtracking_walks(
    graph: sparse.csr_array, start: Dense, target: Dense, *, longest: float, steps: int, rng: np.random.Generator
) -> Dense:
    """The resistance (sum of 1/w) along walks that never turn back, from each start until its target is reached.

    Each step goes to a neighbour other than the last, all alike; a walk ends at its target, at a leaf or after `steps`.

    Args:
        graph: A (n, n), undirected.
        start: (m,) nodes.
        target: (m,) nodes.
        longest: resistance beyond which a walk is given up.
        steps: at most.
        rng: of the steps.

    Returns:
        (m,), Inf where the target was not reached.
    """
    here, last = start.copy(), np.full(len(start), -1)
    length, found = np.zeros(len(start)), np.full(len(start), np.inf)
    active = np.flatnonzero(start != target)
    found[start == target] = 0
    degree = np.diff(graph.indptr)
    for _ in range(steps):
        at, before = here[active], last[active]
        choices = degree[at] - (before >= 0)
        active, at, before, choices = (x[choices > 0] for x in (active, at, before, choices))
        if not len(active):
            break
        pick = graph.indptr[at] + (rng.random(len(at)) * choices).astype(np.int64)
        # One of the others: where the last node was picked, the last neighbour of all is taken for it.
        back = graph.indices[pick] == before
        pick = np.where(back, graph.indptr[at + 1] - 1, pick)
        here[active], last[active] = graph.indices[pick], at
        length[active] += 1 / graph.data[pick]
        arrived = here[active] == target[active]
        found[active[arrived]] = length[active[arrived]]
        active = active[~arrived & (length[active] <= longest)]
    return found
