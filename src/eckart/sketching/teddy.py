"""Edges of a graph that a network on it can do without, by degrees alone."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import sparse

from eckart.arrays import Array, Dense, Seed, generator_of
from eckart.errors import Refused
from eckart.linalg.graphs import adjacency, edges_of, powers_of_degrees
from eckart.linalg.resistances import effective_resistance
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch


def teddy_scores(graph: sparse.csr_array, u: Dense, v: Dense) -> Dense:
    """t_u t_v / (d_u d_v) of edges, t_i = (1/d_i) sum over neighbours j of d_j^-1/2; d counts edges without loops."""
    pattern = sparse.csr_array((np.ones(graph.nnz), graph.indices, graph.indptr), shape=graph.shape)
    pattern = pattern - sparse.diags_array(pattern.diagonal())
    degree = np.asarray(pattern.sum(1)).ravel()
    inverse = powers_of_degrees(degree, -1)
    t = inverse * (pattern @ powers_of_degrees(degree, -0.5))
    score = t * inverse
    found: Dense = score[u] * score[v]
    return found


def _ring_and_hub(generator: np.random.Generator) -> dict[str, Any]:
    """A ring of 30 nodes and a hub that 12 of them know."""
    n = 31
    ring = np.roll(np.eye(n), 1, axis=1)
    ring[-1], ring[:, 0], ring[-2, 0] = 0, 0, 1
    ring[generator.choice(n - 1, 12, replace=False), -1] = 1
    return {"graph": sparse.csr_array(np.maximum(ring, ring.T)), "keep": 0.7}


def _all_edges(rng: np.random.Generator) -> Planted:
    """All edges are kept."""
    given = _ring_and_hub(rng) | {"keep": 1.0}
    return Planted(given, lambda found: np.abs((found - given["graph"]).toarray()).max(), 0.0)


@sketch(
    "teddy",
    paper="Seo, Yun and Yang 2024, arXiv 2402.01261",
    gives="the graph with a share of its edges",
    error="none is known beforehand: what a network loses is measured",
    problem=_ring_and_hub,
    limit=_all_edges,
    draws=False,
)
def sparsify_edges(
    graph: Array,
    keep: float,
    *,
    score: Literal["teddy", "degree", "resistance", "random"] = "teddy",
    min_degree: int = 0,
    generator: Seed = None,
) -> sparse.csr_array:
    """Keeps the share of edges with the highest scores: TEDDY drops edges between nodes of high degree first.

    An undirected edge has one score and both of its directions stay or go; loops stay. Other scores for comparison:
    1/sqrt(d_u d_v), weight times effective resistance, or chance.

    Args:
        graph: A (n, n), undirected, sparse or dense; weights stay what they are.
        keep: share of edges, 0 to 1, rounded.
        score: by what edges are kept; of those that tie the first.
        min_degree: edges that each node keeps at least, its best ones, beyond the share if need be.
        generator: of "random".

    Returns:
        (n, n) in compressed rows.
    """
    a = adjacency(graph, symmetric=True)
    if not 0 <= keep <= 1 or min_degree < 0:
        raise Refused(f"keep={keep} is a share in 0..1, and min_degree={min_degree} is not negative")
    u, v, weight = edges_of(a)
    if score == "teddy":
        s = teddy_scores(a, u, v)
    elif score == "degree":
        degree = np.bincount(np.concatenate([u, v]), minlength=a.shape[0])
        s = 1 / np.sqrt(degree[u] * degree[v])
    elif score == "resistance":
        s = weight * effective_resistance(a, u, v)
    elif score == "random":
        s = generator_of(generator).random(len(u))
    else:
        raise Refused(f"unknown score {score!r}; there are teddy, degree, resistance and random")
    best = np.argsort(-s, kind="stable")
    kept = np.zeros(len(u), bool)
    kept[best[: round(keep * len(u))]] = True
    if min_degree:
        held = np.bincount(np.concatenate([u[kept], v[kept]]), minlength=a.shape[0])
        for e in best:
            if not kept[e] and min(held[u[e]], held[v[e]]) < min_degree:
                kept[e] = True
                held[[u[e], v[e]]] += 1
    half = sparse.coo_array((weight[kept], (u[kept], v[kept])), shape=a.shape)
    return sparse.csr_array(half + half.T + sparse.diags_array(a.diagonal()))
