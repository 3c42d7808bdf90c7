"""Proximities of the nodes of a graph, from eigendecompositions and by sums of numbers that are not negative."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components, shortest_path
from torch import Tensor

from eckart.errors import Refused
from eckart.kernels._walks import Series, Walks, product_of, resolved, tail
from eckart.linalg.graphs import adjacency
from eckart.linalg.nonnegative import exponential, resolvent

PROXIMITIES = ("Walk", "Comm", "For", "Heat", "NHeat", "PPR", "CT", "SCT")
LARGEST = 700.0
"""The exponent of the largest number of 64 bits, and a little less."""


class Graph:
    """An undirected graph, and the three eigendecompositions from which its proximities are made, each once.

    Args:
        a: weights of the edges (n, n), symmetric, not negative; dense or sparse.
    """

    def __init__(self, a: Any) -> None:
        self.adjacency = adjacency(a.detach().cpu().numpy() if isinstance(a, Tensor) else a, symmetric=True)
        self.n = self.adjacency.shape[0]
        if not self.n:
            raise Refused("a graph without nodes has no proximities")
        self.components = int(connected_components(self.adjacency, directed=False)[0])
        self.degree = torch.from_numpy(np.asarray(self.adjacency.sum(1)).ravel())

    @cached_property
    def dense(self) -> Tensor:
        """A (n, n)."""
        return torch.from_numpy(self.adjacency.toarray())

    @cached_property
    def alike(self) -> Tensor:
        """D^-1/2 A D^-1/2, zero where a node has no edge."""
        root = torch.where(self.degree > 0, self.degree.sqrt(), 1.0)
        return self.dense / root[:, None] / root

    @cached_property
    def of_adjacency(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of A."""
        return _eigh(self.dense)

    @cached_property
    def of_laplacian(self) -> tuple[Tensor, Tensor]:
        """Those of L = D - A."""
        return _eigh(self.degree.diag() - self.dense)

    @cached_property
    def of_normalized(self) -> tuple[Tensor, Tensor]:
        """Those of D^-1/2 (D - A) D^-1/2, zero where a node has no edge."""
        return _eigh((self.degree > 0).double().diag() - self.alike)

    @cached_property
    def of_pages(self) -> Tensor:
        """D^-1/2 times the eigenvectors of D^-1/2 (D - A) D^-1/2."""
        return self.of_normalized[1] / self.degree.sqrt()[:, None]

    @cached_property
    def walks(self) -> Walks:
        """Powers of A."""
        return Walks(self.dense, *self.of_adjacency)

    @cached_property
    def rests(self) -> Walks:
        """Powers of the largest degree less L, which has no negative entries."""
        values, vectors = self.of_laplacian
        a, most = self.dense, self.degree.max()
        loops = a.diagonal()
        return Walks(a - loops.diag() + (most - self.degree + loops).diag(), most - values, vectors)

    @cached_property
    def steps(self) -> Walks:
        """Powers of D^-1/2 A D^-1/2, of a graph without nodes that have no edge."""
        values, vectors = self.of_normalized
        return Walks(self.alike, 1 - values, vectors)

    @cached_property
    def far(self) -> int:
        """Twice the edges from the first node to the farthest, at least those between any two; of a connected graph."""
        return max(1, 2 * int(shortest_path(self.adjacency, unweighted=True, indices=0).max()))

    @cached_property
    def radius(self) -> float:
        """The largest eigenvalue of A."""
        return float(self.of_adjacency[0][-1])


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def parameter(graph: Graph, kind: str, share: float) -> float:
    """t of a share in (0, 1): share / rho(A) of Walk, the share of PPR, share / (2 (1 - share)) of the others.

    That of Comm ends where e^(t A) reaches the largest number of 64 bits.
    """
    if not 0 < share < 1:
        raise Refused(f"share={share} is not between 0 and 1")
    if kind == "PPR":
        return share
    usual = share / (1 - share) / 2
    if kind not in ("Walk", "Comm"):
        return usual
    radius = graph.radius or 1.0
    return share / radius if kind == "Walk" else min(usual, LARGEST / radius)


def spectrum(graph: Graph, kind: str, t: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n,) and F (n, n) of which a plain proximity is F diag(values) F^T; all but SCT, which is none.

    Of several t (k,) the values are (k, n).
    """
    at, t = float(t.detach().max()), t[..., None]
    if kind in ("Walk", "Comm"):
        values, vectors = graph.of_adjacency
        if kind == "Walk" and at * graph.radius >= 1:
            raise Refused(f"t={at:.6g}: Walk (I - t A)^-1 needs t below 1 / rho(A) = {1 / graph.radius:.6g}")
        if kind == "Comm" and at * graph.radius > LARGEST * (1 + 1e-9):
            raise Refused(f"t={at:.6g}: e^(t A) reaches e^{at * graph.radius:.0f}: take its logarithm")
        return (1 / (1 - t * values) if kind == "Walk" else (t * values).exp()), vectors
    if kind in ("NHeat", "PPR"):
        values, vectors = graph.of_normalized
        if kind == "NHeat":
            return (-t * values).exp(), vectors
        _page_rank(graph, at)
        return 1 / (1 - t + t * values), graph.of_pages
    values, vectors = graph.of_laplacian
    if kind == "CT":
        # One zero for each component, whose eigenvectors are constant there.
        found = torch.zeros_like(t * values)
        found[..., graph.components :] = 1 / values[graph.components :]
        return found, vectors
    return (1 / (1 + t * values) if kind == "For" else (-t * values).exp()), vectors


def _page_rank(graph: Graph, at: float) -> None:
    if not 0 < at < 1:
        raise Refused(f"t={at:.6g}: PPR (D - t A)^-1 needs t between 0 and 1")
    if not bool((graph.degree > 0).all()):
        raise Refused(f"node {int(graph.degree.argmin())} has no edge, so that no walk of PPR can start there")


def proximity(graph: Graph, kind: str, t: Any, log: bool = False) -> Tensor:
    """K (n, n) of all pairs of nodes, float64; differentiable by t. See `proximities`."""
    return next(proximities(graph, kind, torch.as_tensor(t, dtype=torch.float64)[None], log))


def proximities(graph: Graph, kind: str, ts: Tensor, log: bool = False) -> Iterator[Tensor]:
    """K (n, n) of all pairs of nodes at each t, float64; differentiable by t.

    Logarithms are taken of entries that hold their own digits. Where eigenvalues would lose some in their rounding, the
    short walks are summed, and only longer ones are by eigenvalues; where that is not enough, all are computed again by
    sums and products of numbers that are not negative.

    Args:
        graph: it.
        kind: of `PROXIMITIES`.
        ts: positive (k,), float64; CT has none.
        log: the logarithm of each entry.

    Raises:
        Refused: t is not below its limit, or a logarithm of zero or of a negative number is asked for.
    """
    if kind not in PROXIMITIES:
        raise Refused(f"kind={kind!r} is none of {', '.join(PROXIMITIES)}")
    if log and kind == "CT":
        raise Refused("CT has negative entries, of which there is no logarithm: take For of a large t")
    if log and kind != "SCT" and graph.components > 1:
        raise Refused(
            f"the graph has {graph.components} components, and the proximity between them is 0, whose logarithm is "
            "-Inf: take each by itself, or the plain proximity"
        )
    if kind == "SCT":
        values, factor = spectrum(graph, "CT", ts[0])
        times = product_of(values, factor)
        for t in ts:
            size = t / max(float(times.std(correction=0)), 1e-300) * times
            yield torch.nn.functional.logsigmoid(size) if log else torch.sigmoid(size)
        return
    if not log:
        each, factor = spectrum(graph, kind, ts)
        for values in each:
            yield product_of(values, factor)
        return
    yield from _logarithms(graph, kind, ts)


def _logarithms(graph: Graph, kind: str, ts: Tensor) -> Iterator[Tensor]:
    walks, series, s = _as_walks(graph, kind, ts)
    sizes, most = s.tolist(), LARGEST / (graph.radius or 1.0)
    beyond = [kind == "Comm" and t > most for t in ts.tolist()]
    needed = [None if over else walks.enough(series, size) for over, size in zip(beyond, sizes, strict=True)]
    each, factor = spectrum(graph, kind, ts.clamp(max=most) if any(beyond) else ts)
    short = walks.short(series, s, needed)
    for at, (t, m) in enumerate(zip(ts, needed, strict=True)):
        if m:
            found = short[at] + product_of(tail(series, s[at] * walks.values, m), walks.vectors)
            yield _shifted(graph, kind, t, _log(found))
            continue
        if beyond[at]:
            yield _entrywise(graph, kind, t)
            continue
        found = product_of(each[at], factor)
        if m == 0 or resolved(_unscaled(graph, kind, t, found.detach()), series, sizes[at] * walks.radius):
            yield _log(found)
        else:
            yield _entrywise(graph, kind, t)


def _log(x: Tensor) -> Tensor:
    return x.log() if x.requires_grad else x.log_()


def _as_walks(graph: Graph, kind: str, t: Tensor) -> tuple[Walks, Series, Tensor]:
    """B, f and s of a proximity that is f(s B) but for factors of entries, whose logarithms `_shifted` has."""
    if kind in ("Walk", "Comm"):
        return graph.walks, "geometric" if kind == "Walk" else "exponential", t
    if kind in ("NHeat", "PPR"):
        return graph.steps, "geometric" if kind == "PPR" else "exponential", t
    return graph.rests, *(("geometric", t / (1 + t * graph.degree.max())) if kind == "For" else ("exponential", t))


def _shifted(graph: Graph, kind: str, t: Tensor, log: Tensor) -> Tensor:
    """The logarithm of a proximity, of that of f(s B)."""
    if kind in ("Walk", "Comm"):
        return log
    if kind == "NHeat":
        return log - t
    if kind == "PPR":
        roots = graph.degree.log() / 2
        return log - roots[:, None] - roots
    most = graph.degree.max()
    return log - t * most if kind == "Heat" else log - (1 + t * most).log()


def _unscaled(graph: Graph, kind: str, t: Tensor, found: Tensor) -> Tensor:
    """f(s B) of a proximity; where f is e^x it may have one more factor, the same for all entries."""
    if kind == "PPR":
        roots = graph.degree.sqrt()
        return found * roots[:, None] * roots
    return found * (1 + t.detach() * graph.degree.max()) if kind == "For" else found


def _entrywise(graph: Graph, kind: str, t: Tensor) -> Tensor:
    """The logarithms of a connected graph's proximities, each to its own digits."""
    walks, series, s = _as_walks(graph, kind, t)
    found = resolvent(s * walks.b).log() if series == "geometric" else exponential(s * walks.b, graph.far)
    return _shifted(graph, kind, t, found)
