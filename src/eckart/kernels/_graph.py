"""Proximities of the nodes of a graph, from eigendecompositions and by sums of numbers that are not negative."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components, shortest_path
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.graphs import adjacency, laplacian, normalized
from eckart.linalg.nonnegative import exponential, resolvent

PROXIMITIES = ("Walk", "Comm", "For", "Heat", "NHeat", "PPR", "CT", "SCT")
LARGEST = 700.0
"""The exponent of the largest number of 64 bits, and a little less."""
RESOLVED = 1e8
"""By how much an entry has to stand above the rounding of the largest for its logarithm to be taken of it."""


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

    def dense(self) -> Tensor:
        """A (n, n)."""
        return torch.from_numpy(self.adjacency.toarray())

    @cached_property
    def of_adjacency(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of A."""
        return _eigh(self.dense())

    @cached_property
    def of_laplacian(self) -> tuple[Tensor, Tensor]:
        """Those of L = D - A."""
        return _eigh(torch.from_numpy(laplacian(self.adjacency).toarray()))

    @cached_property
    def of_normalized(self) -> tuple[Tensor, Tensor]:
        """Those of D^-1/2 (D - A) D^-1/2, zero where a node has no edge."""
        alike = torch.from_numpy(normalized(self.adjacency, "symmetric").toarray())
        return _eigh((self.degree > 0).double().diag() - alike)

    @cached_property
    def far(self) -> int:
        """Twice the edges from the first node to the farthest, at least those between any two; of a connected graph."""
        return max(1, 2 * int(shortest_path(self.adjacency, unweighted=True, indices=0).max()))

    @property
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
    """Values (n,) and F (n, n) of which a plain proximity is F diag(values) F^T; all but SCT, which is none."""
    at = float(t.detach())
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
        return 1 / (1 - t + t * values), vectors / graph.degree.sqrt()[:, None]
    values, vectors = graph.of_laplacian
    if kind == "CT":
        # One zero for each component, whose eigenvectors are constant there.
        found = torch.zeros_like(values)
        found[graph.components :] = 1 / values[graph.components :]
        return found, vectors
    return (1 / (1 + t * values) if kind == "For" else (-t * values).exp()), vectors


def _page_rank(graph: Graph, at: float) -> None:
    if not 0 < at < 1:
        raise Refused(f"t={at:.6g}: PPR (D - t A)^-1 needs t between 0 and 1")
    if not bool((graph.degree > 0).all()):
        raise Refused(f"node {int(graph.degree.argmin())} has no edge, so that no walk of PPR can start there")


def proximity(graph: Graph, kind: str, t: Any, log: bool = False) -> Tensor:
    """K (n, n) of all pairs of nodes, float64; differentiable by t.

    Logarithms are taken of entries that hold their own digits: where some are lost in the rounding of the largest, all
    are computed again by sums and products of numbers that are not negative.

    Args:
        graph: it.
        kind: of `PROXIMITIES`.
        t: positive; CT has none.
        log: the logarithm of each entry.

    Raises:
        Refused: t is not below its limit, or a logarithm of zero or of a negative number is asked for.
    """
    wide = torch.as_tensor(t, dtype=torch.float64)
    at = float(wide.detach())
    if kind not in PROXIMITIES:
        raise Refused(f"kind={kind!r} is none of {', '.join(PROXIMITIES)}")
    if kind == "SCT":
        times = _product(*spectrum(graph, "CT", wide))
        size = wide / max(float(times.std(correction=0)), 1e-300) * times
        return torch.nn.functional.logsigmoid(size) if log else torch.sigmoid(size)
    if not log:
        return _product(*spectrum(graph, kind, wide))
    if kind == "CT":
        raise Refused("CT has negative entries, of which there is no logarithm: take For of a large t")
    if graph.components > 1:
        raise Refused(
            f"the graph has {graph.components} components, and the proximity between them is 0, whose logarithm is "
            "-Inf: take each by itself, or the plain proximity"
        )
    if kind != "Comm" or at * graph.radius <= LARGEST:
        found = _product(*spectrum(graph, kind, wide))
        low, high = (float(each) for each in found.detach().aminmax())
        if low > RESOLVED * torch.finfo(torch.float64).eps * high:
            return found.log()
    return _entrywise(graph, kind, wide)


def _product(values: Tensor, factor: Tensor) -> Tensor:
    return (factor * values) @ factor.T


def _entrywise(graph: Graph, kind: str, t: Tensor) -> Tensor:
    """The logarithms of a connected graph's proximities, each to its own digits."""
    a = graph.dense()
    if kind == "Walk":
        return resolvent(t * a).log()
    if kind == "Comm":
        return exponential(t * a, graph.far)
    degree = graph.degree
    if kind in ("NHeat", "PPR"):
        root = degree.sqrt()
        alike = a / root[:, None] / root
        if kind == "PPR":
            return (resolvent(t * alike) / root[:, None] / root).log()
        return exponential(t * alike, graph.far) - t
    most = degree.max()
    rest = a - a.diagonal().diag() + (most - degree + a.diagonal()).diag()
    if kind == "Heat":
        return exponential(t * rest, graph.far) - t * most
    return (resolvent(t / (1 + t * most) * rest) / (1 + t * most)).log()
