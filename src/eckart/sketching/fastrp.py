"""Embeddings of a graph's nodes: powers of its walk, applied to random signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from eckart.arrays import Array, Dense, Seed, back, generator_of, rows
from eckart.errors import Refused
from eckart.sketching.contract import sketch


def sparse_signs(n: int, d: int, density: float, generator: np.random.Generator) -> Dense:
    """R (n, d), zero but for a share `density` that is +-1 / sqrt(density): E R R^T = d I. Achlioptas 2003."""
    drawn = generator.random((n, d))
    size = density**-0.5
    signs: Dense = np.where(drawn < density, np.where(drawn < density / 2, -size, size), 0.0)
    return signs


def walk_powers(
    adjacency: sparse.csr_array, start: Dense, count: int, beta: float = 0.0, *, normalize: bool = True
) -> list[Dense]:
    """U_k = S U_(k-1), U_0 = D^beta R, with S = D^-1 A the walk of a graph; rows of length 1 or zero if `normalize`.

    A node without edges walks nowhere: its rows are zero.

    Args:
        adjacency: A (n, n), weights not negative.
        start: R (n, d).
        count: powers.
        beta: of the degrees, by their mean so that its scale is that of R.
        normalize: each power's rows before they are summed; the next power is of those that are not.

    Returns:
        U_1 to U_count.
    """
    degree = np.asarray(adjacency.sum(1)).ravel()
    linked = degree > 0
    inverse = np.where(linked, 1 / np.where(linked, degree, 1), 0)
    weight = np.where(linked, degree / degree[linked].mean(), 1) ** beta if linked.any() else np.ones(len(degree))
    walk = sparse.diags_array(inverse) @ adjacency
    power, powers = weight[:, None] * start, []
    for _ in range(count):
        power = walk @ power
        length = np.linalg.norm(power, axis=1, keepdims=True)
        powers.append(power / np.where(length > 0, length, 1) if normalize else power)
    return powers


def _ring(generator: np.random.Generator) -> dict[str, Any]:
    """A ring of 40 nodes with 40 chords."""
    n = 40
    ends = np.concatenate([np.stack([np.arange(n), np.roll(np.arange(n), 1)]), generator.integers(0, n, (2, n))], 1)
    graph = sparse.coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(n, n)).tocsr()
    return {"adjacency": graph + graph.T, "components": 8}


@sketch(
    "fastrp",
    paper="Chen et al. 2019, arXiv 1908.11512",
    gives="embeddings (n, d)",
    error="of inner products of weighted powers, as 1/sqrt(d)",
    problem=_ring,
)
def node_embedding(
    adjacency: Array,
    components: int = 128,
    *,
    weights: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    beta: float = 0.0,
    density: float = 1 / 3,
    normalize: bool = True,
    generator: Seed = None,
) -> Array:
    """Embeds the nodes of a graph by products of its walk with random signs: sum_k w_k (D^-1 A)^k D^beta R.

    Args:
        adjacency: A (n, n), sparse or dense, directed or not; its entries are weights of edges, not negative.
        components: d.
        weights: w_1, w_2, ... of the powers of the walk.
        beta: of the degrees D; the paper tunes it in [-1, 0].
        density: share of entries of R (n, d) that are not zero.
        normalize: rows of each power to length 1 before they are summed.
        generator: of R.

    Returns:
        (n, d), as dense as it is; rows of nodes without edges are zero.

    Raises:
        Refused: A is not square or has negative or NaN entries, or an option is out of its range.
    """
    graph = rows(adjacency, "the adjacency")
    if graph.shape[0] != graph.shape[1]:
        raise Refused(f"an adjacency of shape {graph.shape} is not square")
    graph = sparse.csr_array(graph)
    if graph.data.size and graph.data.min() < 0:
        raise Refused(f"an edge weighs {graph.data.min():.3g}; weights are not negative")
    if components < 1 or not weights or not 0 < density <= 1:
        raise Refused(f"components={components}, weights={list(weights)} and density={density} give no embedding")
    start = sparse_signs(graph.shape[0], components, density, generator_of(generator))
    powers = walk_powers(graph, start, len(weights), beta, normalize=normalize)
    found = sum((w * power for w, power in zip(weights, powers, strict=True)), np.zeros_like(start))
    return back(found, np.empty(0) if sparse.issparse(adjacency) else adjacency)
