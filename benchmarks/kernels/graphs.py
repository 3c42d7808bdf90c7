"""Clusters of nodes by proximities, plain and log: how near the true ones, over a range of t; beside pygkernels.

pip install scikit-learn networkx graspologic scikit-network
git clone https://github.com/vlivashkin/pygkernels      # 9d30c74; it is on no registry
python -m benchmarks.kernels.graphs --pygkernels DIR
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from benchmarks.common.rows import Rows, add_option
from eckart.kernels._graph import Graph, _entrywise, parameter, proximity
from eckart.kernels.log_graph_kernels import SHARES, sweep
from eckart.linalg.kernel_k_means import kernel_distances, kernel_k_means, silhouette

Found = tuple[dict[str, Any], dict[str, Any]]
Labelled = tuple[np.ndarray, np.ndarray]
KINDS = ("Walk", "Comm", "For", "Heat", "NHeat", "PPR")
SEEDS, TURNS = 5, 5
NAME = "log-graph-kernels"


def blocks(seed: int) -> Labelled:
    """Two halves of 50 nodes: an edge within with probability 0.3, across with 0.15."""
    rng, y = np.random.default_rng(seed), np.arange(100) % 2
    upper = np.triu(rng.random((100, 100)) < np.where(y[:, None] == y, 0.3, 0.15), 1).astype(float)
    return upper + upper.T, y


def karate(_: int = 0) -> Labelled:
    """34 members of a club that split."""
    graph = nx.karate_club_graph()
    return nx.to_numpy_array(graph, weight=None), np.array([graph.nodes[i]["club"] == "Officer" for i in graph]) * 1


def articles(_: int = 0) -> Labelled:
    """30 articles on art, philosophy and science, of scikit-network; edges in either direction."""
    from sknetwork.data import art_philo_science

    data = art_philo_science(metadata=True)
    a = data.adjacency.toarray().astype(float)
    return np.maximum(a, a.T), np.asarray(data.labels)


def connectome(_: int = 0) -> Labelled:
    """209 cells of the left mushroom body of a larva, of four types; whether there are synapses in either direction."""
    spec = find_spec("graspologic")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0], "datasets", "drosophila")
    a = np.loadtxt(folder / "left_adjacency.csv")
    y = np.unique((folder / "left_cell_labels.csv").read_text("utf-8").split(), return_inverse=True)[1]
    a = ((a + a.T) > 0).astype(float)
    np.fill_diagonal(a, 0)
    return a, y


GRAPHS: dict[str, tuple[Callable[[int], Labelled], int]] = {
    "blocks": (blocks, SEEDS),
    "karate": (karate, 1),
    "articles": (articles, 1),
    "connectome": (connectome, 1),
}


def largest(a: np.ndarray, y: np.ndarray) -> Labelled:
    """The largest part of a graph."""
    part = connected_components(a, directed=False)[1]
    kept = part == np.bincount(part).argmax()
    return a[kept][:, kept], y[kept]


def clusters() -> Iterator[Found]:
    """The adjusted Rand index of kernel k-means: best and median over t, and at the t of the largest silhouette."""
    for name, (draw, seeds) in GRAPHS.items():
        for kind in KINDS:
            found: dict[str, list[float]] = {}
            for seed in range(seeds):
                a, y = largest(*draw(seed))
                count = len(np.unique(y))
                tried: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
                for _, log, _, k in sweep(a, (kind,)):
                    labels = kernel_k_means(k, count, generator=seed).value
                    apart = silhouette(np.sqrt(kernel_distances(k)), labels)
                    tried[log].append((apart, adjusted_rand_score(y, labels)))
                for log, scores in tried.items():
                    which = "log" if log else "plain"
                    index = [score for _, score in scores]
                    found.setdefault(f"{which} best", []).append(max(index))
                    found.setdefault(f"{which} median", []).append(float(np.median(index)))
                    found.setdefault(f"{which} chosen", []).append(max(scores)[1])
            what = {"part": "clusters", "method": NAME, "graph": name, "kind": kind, "seeds": seeds}
            yield what, {key: float(np.mean(each)) for key, each in found.items()} | {"nodes": len(y)}


def others() -> Iterator[Found]:
    """Spectral clustering of scikit-learn with as many clusters; Louvain of scikit-network, which finds how many."""
    from sknetwork.clustering import Louvain

    for name, (draw, seeds) in GRAPHS.items():
        scores: dict[str, list[float]] = {"spectral": [], "Louvain": []}
        for seed in range(seeds):
            a, y = largest(*draw(seed))
            spectral = SpectralClustering(len(np.unique(y)), affinity="precomputed", random_state=seed)
            scores["spectral"].append(adjusted_rand_score(y, spectral.fit_predict(a)))
            scores["Louvain"].append(adjusted_rand_score(y, Louvain(random_state=seed).fit_predict(a)))
        for arm, each in scores.items():
            yield {"part": "others", "graph": name, "arm": arm, "seeds": seeds}, {"index": float(np.mean(each))}


def against_pygkernels() -> Iterator[Found]:
    """The largest difference from pygkernels' matrices by the largest entry, and the seconds of both for the sweep.

    Of logarithms also from those of sums and products alone; seconds are the least of some turns.
    """
    from pygkernels.measure import kernel as plain
    from pygkernels.measure import produced as logs

    theirs = {
        "Walk": ("Katz_H", "logKatz_H"),
        "PPR": ("ModifPPR_H", "logModifPPR_H"),
        **{kind: (f"{kind}_H", f"log{kind}_H") for kind in ("Comm", "For", "Heat", "NHeat")},
    }
    for name in ("blocks", "connectome"):
        a, _ = largest(*GRAPHS[name][0](0))
        graph = Graph(a)
        ts = {kind: [parameter(graph, kind, share) for share in SHARES] for kind in KINDS}
        made: dict[tuple[str, bool, float], np.ndarray] = {}
        matrices: dict[tuple[str, bool, float], np.ndarray] = {}
        ours, seconds = {False: np.inf, True: np.inf}, {False: np.inf, True: np.inf}
        for _ in range(TURNS):
            for log in (False, True):
                start = time.process_time()
                for kind, _, t, k in sweep(a, KINDS, logs=(log,)):
                    made[kind, log, t] = k
                ours[log] = min(ours[log], time.process_time() - start)
                start = time.process_time()
                for kind in KINDS:
                    object_ = getattr(logs if log else plain, theirs[kind][log])(a)
                    for t in ts[kind]:
                        matrices[kind, log, t] = object_.get_K(t)
                seconds[log] = min(seconds[log], time.process_time() - start)
        apart = far = own = 0.0
        for (kind, log, t), mine in made.items():
            matrix = matrices[kind, log, t]
            if log:
                with np.errstate(invalid="ignore"):
                    off = np.abs(mine - matrix)
                far = max(far, float(np.where(np.isfinite(matrix), off, 0.0).max()))
                exact = _entrywise(graph, kind, torch.tensor(t, dtype=torch.float64)).numpy()
                own = max(own, float(np.abs(mine - exact).max()))
            else:
                apart = max(apart, float(np.abs(mine - matrix).max() / np.abs(matrix).max()))
        what = {"part": "pygkernels", "method": NAME, "graph": name, "nodes": len(a), "ts": len(SHARES), "turns": TURNS}
        yield (
            what,
            {
                "plain": apart,
                "log": far,
                "log by sums": own,
                "plain seconds": ours[False],
                "plain theirs": seconds[False],
                "plain times": seconds[False] / ours[False],
                "log seconds": ours[True],
                "log theirs": seconds[True],
                "log times": seconds[True] / ours[True],
            },
        )


def digits() -> Iterator[Found]:
    """Logarithms between the ends of a path of 24 nodes, where walks pass all nodes between: how far they add up."""
    a = np.diag(np.ones(23), 1)
    graph = Graph(a + a.T)
    for kind in ("Walk", "For", "PPR"):
        log = proximity(graph, kind, 0.01, log=True).numpy()
        naive = proximity(graph, kind, 0.01).numpy()
        what = {"part": "digits", "method": NAME, "kind": kind, "t": 0.01, "nodes": 24}
        yield (
            what,
            {
                "log": float(log[0, -1]),
                "off": float(abs(log[0, 10] + log[10, -1] - log[10, 10] - log[0, -1])),
                "of the eigenvalues": float(np.log(abs(naive[0, -1]) or 1e-300)),
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--pygkernels", metavar="DIR", help="where its repository lies")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.pygkernels:
        sys.path.insert(0, options.pygkernels)
    rows = Rows("kernels.graphs", options.json)
    parts = {"digits": digits, "pygkernels": against_pygkernels, "others": others, "clusters": clusters}
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k not in ("part", "method")}, found, flush=True)


if __name__ == "__main__":
    main()
