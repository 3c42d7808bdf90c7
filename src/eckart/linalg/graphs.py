"""Graphs as sparse matrices: walks, Laplacians and effective resistances, safe where a node has no edge."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from eckart.arrays import Dense, Seed, generator_of, rows
from eckart.errors import Refused
from eckart.linalg.krylov import pcg

STEPS = 100
"""Of conjugate gradients, before a sparse LU is thought to be the better."""


def adjacency(a: Any, *, symmetric: bool = False) -> sparse.csr_array:
    """A (n, n) in compressed rows, float64, without stored zeros.

    Raises:
        Refused: it is not square, has negative, NaN or Inf entries, or is not symmetric where that is asked for.
    """
    graph = sparse.csr_array(rows(a, "the adjacency"))
    if graph.shape[0] != graph.shape[1]:
        raise Refused(f"an adjacency of shape {graph.shape} is not square")
    if graph.data.size and graph.data.min() < 0:
        raise Refused(f"an edge weighs {graph.data.min():.3g}; weights are not negative")
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
        return splu(self.grounded) if len(self.free) else None

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

    def nearly(self, b: Dense, tolerance: float) -> Dense:
        """L^+ b by conjugate gradients, scaled by the degrees, to a residual of so much of |b|; by LU where they crawl.

        Graphs that mix fast need few steps, and those are the ones whose LU fills up.
        """
        b, degree = self._centred(b), self.laplacian.diagonal()
        found = pcg(
            self.laplacian,
            b,
            preconditioner=sparse.diags_array(powers_of_degrees(degree, -1)),
            tolerance=tolerance,
            iterations=STEPS,
            backward=False,
        )
        return self._centred(found.value) if found.converged else self(b)

    def _centred(self, b: Dense) -> Dense:
        """b less its mean on each component."""
        found: Dense = b - (self._share @ b / self._sizes)[self.component]
        return found


def effective_resistance(
    a: Any, u: Any, v: Any, *, rtol: float | None = None, generator: Seed = None, block: int = 256
) -> Dense:
    """R_uv = (e_u - e_v)^T L^+ (e_u - e_v) of pairs of nodes; Inf between components.

    Exact, one solution for each pair; or with `rtol` from k = 24 ln n / rtol^2 random projections of W^1/2 B L^+, B the
    incidences (Spielman and Srivastava 2008), whose relative standard deviation is sqrt(2 / k).

    Args:
        a: A (n, n), undirected.
        u: (m,) nodes.
        v: (m,) nodes.
        rtol: relative error that is good enough.
        generator: of the projections.
        block: right sides at once.
    """
    graph = adjacency(a, symmetric=True)
    solver, n = LaplacianSolver(graph), graph.shape[0]
    u, v = np.atleast_1d(np.asarray(u, np.int64)), np.atleast_1d(np.asarray(v, np.int64))
    found = np.empty(len(u))
    if rtol is None:
        for start in range(0, len(u), block):
            x, y = u[start : start + block], v[start : start + block]
            b, k = np.zeros((n, len(x))), np.arange(len(x))
            np.add.at(b, (x, k), 1)
            np.add.at(b, (y, k), -1)
            z = solver(b)
            found[start : start + block] = z[x, k] - z[y, k]
    else:
        ends, others, weight = edges_of(graph)
        places = np.arange(len(ends))
        incidence = sparse.csr_array(
            (np.repeat([1.0, -1.0], len(ends)), (np.concatenate([ends, others]), np.tile(places, 2))), (n, len(ends))
        )
        count = int(np.ceil(24 * np.log(max(n, 2)) / rtol**2))
        rng = generator_of(generator)
        found[:] = 0
        for start in range(0, count, block):
            signs = rng.choice([-1.0, 1.0], (len(ends), min(block, count - start))) * np.sqrt(weight / count)[:, None]
            z = solver.nearly(incidence @ signs, 1e-3 * min(rtol, 1.0))
            found += np.square(z[u] - z[v]).sum(1)
    apart: Dense = np.where(solver.component[u] == solver.component[v], found, np.inf)
    return apart


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
