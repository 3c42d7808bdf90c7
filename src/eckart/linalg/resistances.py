"""Effective resistances of a graph: exact, and by random projections."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotri

from eckart.arrays import Dense, Seed, generator_of
from eckart.linalg.graphs import LaplacianSolver, adjacency, edges_of, powers_of_degrees

STEPS = 100
"""Of conjugate gradients, before a sparse LU is thought to be the better."""
LARGEST_INVERTED = 5000
"""Nodes up to which the inverse is formed where nearly as many solutions with it are asked for."""
ALIKE = 100.0
"""By so much weights may differ where float32 is enough for projections."""


def effective_resistance(
    a: Any, u: Any, v: Any, *, rtol: float | None = None, generator: Seed = None, block: int = 256
) -> Dense:
    """R_uv = (e_u - e_v)^T L^+ (e_u - e_v) of pairs of nodes; Inf between components.

    Exact, by the inverse of L with a node of each component held at zero, or for few pairs or many nodes by one
    solution for each pair; or with `rtol` from k = 24 ln n / rtol^2 random projections of W^1/2 B L^+, B the incidences
    (Spielman and Srivastava 2008), whose relative standard deviation is sqrt(2 / k).

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
    if rtol is None:
        many = 4 * len(u) >= n and 0 < len(solver.free) <= LARGEST_INVERTED
        found = _by_inverse(solver, u, v) if many else None
        found = _by_solutions(solver, u, v, block) if found is None else found
    else:
        found = np.zeros(len(u))
        count = int(np.ceil(24 * np.log(max(n, 2)) / rtol**2))
        rng, projection = generator_of(generator), _Projection(graph, solver)
        for start in range(0, count, block):
            z = projection(min(block, count - start), rng, 1e-3 * min(rtol, 1.0))
            for at in range(0, len(u), block):
                apart = z[u[at : at + block]]
                apart -= z[v[at : at + block]]
                found[at : at + block] += np.einsum("ij,ij->i", apart, apart)
        found /= count
    connected: Dense = np.where(solver.component[u] == solver.component[v], found, np.inf)
    return connected


def _by_solutions(solver: LaplacianSolver, u: Dense, v: Dense, block: int) -> Dense:
    found = np.empty(len(u))
    for start in range(0, len(u), block):
        x, y = u[start : start + block], v[start : start + block]
        b, k = np.zeros((len(solver.component), len(x))), np.arange(len(x))
        np.add.at(b, (x, k), 1)
        np.add.at(b, (y, k), -1)
        z = solver(b)
        found[start : start + block] = z[x, k] - z[y, k]
    return found


def _by_inverse(solver: LaplacianSolver, u: Dense, v: Dense) -> Dense | None:
    """X_uu + X_vv - 2 X_uv, X the inverse of L without the nodes that are held; None where rounding has it singular."""
    lower, failed = dpotrf(solver.grounded.toarray(order="F"), lower=1, overwrite_a=1)
    if failed:
        return None
    inner = dpotri(lower, lower=1, overwrite_c=1)[0]
    place = np.full(len(solver.component), -1)
    place[solver.free] = np.arange(len(solver.free))
    held = (place[u] < 0) | (place[v] < 0)
    small, large = np.minimum(place[u], place[v]), np.maximum(place[u], place[v])
    diagonal = np.append(inner.diagonal(), 0.0)  # of a node that is held: the last, zero
    between = np.where(held, 0.0, inner[large, small])
    found: Dense = np.where(u == v, 0.0, diagonal[place[u]] + diagonal[place[v]] - 2 * between)
    return found


class _Projection:
    """Columns of Z (n, k) with R_uv about |Z_u - Z_v|^2 / k, for signs Q (edges, k): Z = L^+ B^T W^1/2 Q.

    With N = D^-1/2 B^T W^1/2 it is Z = D^-1/2 (N N^T)^+ N Q up to constants, by conjugate gradients in float32 where
    the weights are alike. Graphs that mix fast need few steps, and those are the ones whose LU fills up; where they
    crawl, Z is had by LU.
    """

    def __init__(self, graph: sparse.csr_array, solver: LaplacianSolver) -> None:
        ends, others, weight = edges_of(graph)
        self.solver, self.edges = solver, len(ends)
        alike = not len(weight) or weight.max() <= ALIKE * weight.min()
        self.dtype: Any = np.float32 if alike else np.float64
        degree = solver.laplacian.diagonal()
        self.root = powers_of_degrees(degree, -0.5)[:, None]
        places = np.tile(np.arange(self.edges), 2)
        roots = np.sqrt(weight)
        self.incidence = sparse.csr_array(
            (np.concatenate([roots, -roots]), (np.concatenate([ends, others]), places)), (len(degree), self.edges)
        )
        scale = sparse.diags_array(self.root[:, 0])
        self.scaled = sparse.csr_array(scale @ self.incidence).astype(self.dtype)
        self.normal = sparse.csr_array(scale @ solver.laplacian @ scale).astype(self.dtype)

    def __call__(self, count: int, rng: np.random.Generator, tolerance: float) -> Dense:
        bits = np.frombuffer(rng.bytes((self.edges * count + 7) // 8), np.uint8)
        signs = np.unpackbits(bits, count=self.edges * count).reshape(self.edges, count).astype(self.dtype)
        signs *= 2
        signs -= 1
        found = _gradients(self.normal, self.scaled @ signs, tolerance)
        return self.solver(self.incidence @ signs) if found is None else found * self.root.astype(self.dtype)


def _gradients(a: sparse.csr_array, r: Dense, tolerance: float) -> Dense | None:
    """X with A X = B by conjugate gradients, each column to a residual of so much of its length; None if they crawl.

    Args:
        a: A (n, n), positive semi-definite, its null space orthogonal to the columns of B.
        r: B (n, k), which is overwritten.
        tolerance: of the residuals.
    """
    x, p = np.zeros_like(r), r.copy()
    squares = np.einsum("ij,ij->j", r, r)
    goal = tolerance**2 * squares
    for _ in range(STEPS):
        ap = a @ p
        curvature = np.einsum("ij,ij->j", p, ap)
        step = squares / np.where(curvature > 0, curvature, np.inf)
        x += step * p
        ap *= step
        r -= ap
        before, squares = squares, np.einsum("ij,ij->j", r, r)
        if (squares <= goal).all():
            return x
        p *= squares / np.where(before > 0, before, 1)
        p += r
    return None
