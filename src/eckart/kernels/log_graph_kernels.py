"""Proximities of the nodes of a graph, plain and as their logarithms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eckart.arrays import Dense, generator_of
from eckart.errors import Refused
from eckart.kernels._graph import PROXIMITIES, Graph, parameter, proximities, proximity, spectrum
from eckart.kernels._kernel import Kernel
from eckart.kernels._parameters import log_parameter, plain
from eckart.kernels.contract import Example, kernel
from eckart.linalg.kernel_k_means import kernel_distances, kernel_k_means, silhouette

TOGETHER = 2**22
"""Numbers of matrices that are made at once."""
SHARES = tuple(np.round(np.linspace(0.05, 0.95, 15), 4).tolist())


def sweep(
    a: Any,
    kinds: Sequence[str] = ("Walk", "Comm", "For", "Heat", "NHeat", "PPR"),
    shares: Sequence[float] = SHARES,
    logs: Sequence[bool] = (False, True),
) -> Iterator[tuple[str, bool, float, Dense]]:
    """Every kind, plain and log, at every parameter, from one eigendecomposition for all that are of one matrix.

    Args:
        a: weights of the edges (n, n), symmetric.
        kinds: of `PROXIMITIES`.
        shares: of the range of t, see `parameter`.
        logs: whether logarithms.

    Yields:
        kind, whether log, t, and K (n, n).
    """
    graph = Graph(a)
    for kind in kinds:
        ts = torch.tensor([parameter(graph, kind, share) for share in shares], dtype=torch.float64)
        step = max(1, TOGETHER // graph.n**2)
        for log, at in product(logs, range(0, len(ts), step)):
            some = ts[at : at + step]
            for t, k in zip(some.tolist(), proximities(graph, kind, some, log), strict=True):
                yield kind, log, t, k.numpy()


def choose_t(
    a: Any,
    clusters: int,
    kind: str = "Comm",
    shares: Sequence[float] = SHARES,
    *,
    log: bool = True,
    generator: int | np.random.Generator | None = None,
) -> tuple[float, Dense]:
    """The t whose clusters stand farthest apart, and their labels, without any labels given.

    For each share k-means in the kernel's own distances, and its silhouette (Rousseeuw 1987) there.

    Args:
        a: weights of the edges (n, n), symmetric.
        clusters: how many.
        kind: of `PROXIMITIES`.
        shares: of the range of t, see `parameter`.
        log: whether of the logarithm.
        generator: of the starts of k-means.

    Returns:
        t, and the cluster of each node (n,).
    """
    best: tuple[float, float, Dense] | None = None
    rng = generator_of(generator)
    for _, _, t, k in sweep(a, (kind,), shares, (log,)):
        labels = kernel_k_means(k, clusters, generator=rng).value
        score = silhouette(np.sqrt(kernel_distances(k)), labels)
        if best is None or score > best[0]:
            best = score, t, labels
    if best is None:
        raise Refused("no share of the range of t was given")
    return best[1:]


def _example(rng: np.random.Generator) -> Example:
    edges = np.triu(rng.random((14, 14)) < 0.4, 1) * rng.uniform(0.5, 2.0, (14, 14))
    return Example(GraphKernel(edges + edges.T, "Comm", 0.3), np.arange(11), np.array([13, 2, 12, 5]))


@kernel(
    "log-graph-kernels",
    paper="Ivashkin and Chebotarev 2016, arXiv 1605.01046",
    gives="K or ln K of two nodes",
    takes="numbers of nodes; the graph is an option",
    example=_example,
)
class GraphKernel(Kernel):
    """How near two nodes of a graph are, by walks, forests or heat, or the logarithm of it.

    Walk (I - t A)^-1, Comm e^(t A), For (I + t L)^-1, Heat e^(-t L), NHeat e^(-t D^-1/2 L D^-1/2), PPR (D - t A)^-1, CT
    the pseudo-inverse L^+ of the Laplacian L = D - A, SCT 1 / (1 + e^(-t L^+ / s)) with s the standard deviation of the
    entries of L^+. With log=True the logarithm of each entry, to its own digits also where it is far below the largest.

    The paper has logarithms ahead in most graphs. They are where nodes of a cluster have edges to each other, and much
    less depends on t then; on a connectome whose cells of one type have none, plain ones find what logarithms lose: see
    docs/learn/graphs.md. Logarithms are not positive semi-definite, nor is SCT. They are refused of graphs in several
    parts, where the logarithm of 0 would come in.

    Args:
        graph: weights of the edges (n, n), symmetric, not negative.
        kind: of these.
        t: positive; below 1 / rho(A) for Walk, below 1 for PPR.
        log: whether the logarithm.

    Raises:
        Refused: another kind or t, or a graph that is directed or has no nodes.
    """

    def __init__(self, graph: Any, kind: str = "Comm", t: float = 1.0, log: bool = False) -> None:
        super().__init__()
        self.graph = Graph(graph)
        self.kind, self.log = kind, bool(log)
        self.log_t = log_parameter("GraphKernel", "t", t)
        self.psd = not log and kind != "SCT"
        if kind not in PROXIMITIES:
            raise Refused(f"kind={kind!r} is none of {', '.join(PROXIMITIES)}")

    def options(self) -> dict[str, Any]:
        graph = self.graph.adjacency.toarray()
        return {"graph": graph, "kind": self.kind, "t": plain(self.log_t.exp()), "log": self.log}

    def _checked(self, x: Any) -> Tensor:
        nodes = torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x)
        n = self.graph.n
        if nodes.ndim != 1 or nodes.is_floating_point() or nodes.is_complex() or nodes.dtype == torch.bool:
            raise Refused(f"nodes of shape {tuple(nodes.shape)} and {nodes.dtype}: hand in their numbers (n,)")
        if nodes.numel() and not (int(nodes.min()) >= 0 and int(nodes.max()) < n):
            raise Refused(f"nodes {int(nodes.min())} to {int(nodes.max())}, and the graph has 0 to {n - 1}")
        return nodes.long()

    def _between(self, x: Tensor, z: Tensor) -> Tensor:
        t = self.log_t.exp()
        if self.log or self.kind == "SCT":
            return proximity(self.graph, self.kind, t, self.log)[x][:, z]
        values, factor = spectrum(self.graph, self.kind, t)
        return (factor[x] * values) @ factor[z].T

    def _diagonal(self, x: Tensor) -> Tensor:
        return self._between(x, x).diagonal()
