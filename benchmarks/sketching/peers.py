"""Transport, sliced distances and embeddings of a graph beside other packages, in one run: seconds and errors.

    pip install --target PEERS --no-deps pot regot nodevectors csrgraph numba llvmlite gensim smart_open wrapt pecanpy
    PYTHONPATH=PEERS python -m benchmarks.sketching.peers --packages FILE [--only PART ...] [--json FILE]

Processor seconds of one thread; the least of some rounds counts. Errors of transport are those of both marginals in
L1, at the same cost and regularisation; each has its own rule to stop at, of 1e-9. FILE as for `sections`.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from benchmarks.common.rows import Rows, add_option
from benchmarks.sketching.sections import graph_of
from eckart.sketching.fastrp import FastRP
from eckart.sketching.sinkhorn_newton_sparse import sinkhorn_newton
from eckart.sketching.sliced_wasserstein_cv import sliced_wasserstein

Found = tuple[dict[str, Any], dict[str, Any]]


class Annotation:
    """Stands for a type that is asked for in annotations alone."""

    def __class_getitem__(cls, of: Any) -> type:
        return cls


def timed(make: Callable[[], Any], rounds: int = 3, enough: float = 5.0) -> tuple[Any, float]:
    """What comes out, and the least processor seconds of some rounds; one where that takes long."""
    best, found = float("inf"), None
    for _ in range(rounds):
        clock = time.process_time()
        found = make()
        best = min(best, time.process_time() - clock)
        if best > enough:
            break
    return found, best


def transports(sizes: list[int], only: list[str]) -> Iterator[Found]:
    """Plans between two halves of the digits, the cost's range being 1."""
    import ot
    import regot

    pictures = load_digits().data
    for n in sizes:
        x, y = pictures[:n], pictures[n : 2 * n]
        cost = np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0)
        cost = cost / cost.max()
        mass = np.full(n, 1 / n)
        for eta in (200, 1200, 5000):
            reg = 1 / eta
            most = 2000 if n <= 300 else 1000
            arms: dict[str, Callable[[], Any]] = {
                "eckart": lambda cost=cost, reg=reg: sinkhorn_newton(cost, reg=reg).value.plan,
                f"POT, log, {most} steps at most": lambda cost=cost, reg=reg, m=mass, k=most: ot.bregman.sinkhorn_log(
                    m, m, cost, reg, numItermax=k, stopThr=1e-9, warn=False
                ),
                "POT, stabilized": lambda cost=cost, reg=reg, m=mass, k=most: ot.bregman.sinkhorn_stabilized(
                    m, m, cost, reg, numItermax=k, stopThr=1e-9, warn=False
                ),
                "regot, SSNS": lambda cost=cost, reg=reg, m=mass: regot.sinkhorn_ssns(cost, m, m, reg, 1e-9, 1000).plan,
            }
            for arm, make in arms.items():
                if only and not arm.startswith(tuple(only)):
                    continue
                plan, seconds = timed(make)
                plan = np.asarray(plan)
                error = float(np.abs(plan.sum(0) - mass).sum() + np.abs(plan.sum(1) - mass).sum())
                what = {"part": "transport", "method": "sinkhorn-newton-sparse", "arm": arm, "points": n, "eta": eta}
                yield what, {"error": error if np.isfinite(error) else None, "seconds": seconds}


def agreement() -> Iterator[Found]:
    """How far our plan is from POT's, each until the marginals are met to 1e-11, by the largest entry."""
    import ot

    pictures = load_digits().data
    n = 200
    x, y = pictures[:n], pictures[n : 2 * n]
    cost = np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0)
    cost, mass = cost / cost.max(), np.full(n, 1 / n)
    for eta in (20, 50, 100):
        ours = sinkhorn_newton(cost, reg=1 / eta, tolerance=1e-11)
        theirs = ot.bregman.sinkhorn_log(mass, mass, cost, 1 / eta, numItermax=20_000, stopThr=1e-11, warn=False)
        short = float(np.abs(theirs.sum(0) - mass).sum() + np.abs(theirs.sum(1) - mass).sum())
        what = {"part": "agreement", "method": "sinkhorn-newton-sparse", "points": n, "eta": eta}
        found = {"apart": float(np.abs(ours.value.plan - theirs).max() / theirs.max())}
        yield what, found | {"error": ours.error, "error_of_pot": short}


def distances(draws: int) -> Iterator[Found]:
    """Squared sliced distances of digits 3 and 8 by 50 lines: mean squared error by that of POT, and seconds."""
    import ot

    data = load_digits()
    x, y = data.data[data.target == 3] / 16, data.data[data.target == 8] / 16
    exact = float(sliced_wasserstein(x, y, projections=6400, control="both", generator=10**6).value)
    arms: dict[str, Callable[[int], float]] = {
        "POT": lambda seed: float(ot.sliced_wasserstein_distance(x, y, n_projections=50, seed=seed)) ** 2,
        "eckart, independent lines": lambda seed: float(
            sliced_wasserstein(x, y, projections=50, control=None, lines="uniform", generator=seed).value
        ),
        "eckart": lambda seed: float(sliced_wasserstein(x, y, projections=50, generator=seed).value),
    }
    plain = 0.0
    for arm, make in arms.items():
        squared = float(np.mean([(make(seed) - exact) ** 2 for seed in range(draws)]))
        plain = plain or squared
        _, seconds = timed(lambda make=make: make(0), rounds=20)
        what = {"part": "distance", "method": "sliced-wasserstein-cv", "arm": arm, "lines": 50, "draws": draws}
        yield what, {"gain": plain / squared, "seconds": seconds}


def nodes(file: Path, only: list[str]) -> Iterator[Found]:
    """Sections of 10,000 packages by logistic regression on 128 numbers of each, 3000 known; seconds of embedding."""
    _, graph, labels, _ = graph_of(file)
    order = np.random.default_rng(0).permutation(len(labels))
    asked, known = order[:10_000], order[10_000:13_000]

    def prone() -> Any:
        from nodevectors import ProNE

        return ProNE(n_components=128, verbose=False).fit_transform(sparse.csr_matrix(graph.copy()))

    def node2vec(walks: int, steps: int, of: Any = graph) -> Any:
        # pecanpy's annotations are by nptyping, which NumPy 2 took the names of away from.
        names = ("Bool", "Float32", "NDArray", "Shape", "UInt32", "UInt64")
        stub = sys.modules.setdefault("nptyping", ModuleType("nptyping"))
        vars(stub).update({name: Annotation for name in names if not hasattr(stub, name)})
        from pecanpy import pecanpy

        made = pecanpy.FirstOrderUnweighted(p=1, q=1, workers=1, verbose=False, random_state=0)
        made.set_node_ids([str(i) for i in range(of.shape[0])])
        made.indptr, made.indices = of.indptr.astype(np.uint32), of.indices.astype(np.uint32)
        made.data = of.data.astype(np.float32)
        return made.embed(dim=128, num_walks=walks, walk_length=steps, window_size=5, epochs=1)

    arms: dict[str, Callable[[], Any]] = {
        "FastRP": lambda: FastRP(random_state=0).fit_transform(graph),
        "FastRP, float32": lambda: FastRP(random_state=0).fit_transform(graph.astype(np.float32)),
        "ProNE (nodevectors)": prone,
        "node2vec (pecanpy), 1 walk of 20 steps": lambda: node2vec(1, 20),
        "node2vec (pecanpy), 2 walks of 40 steps": lambda: node2vec(2, 40),
    }
    ring = sparse.csr_array(np.roll(np.eye(9), 1, axis=1) + np.roll(np.eye(9), -1, axis=1))
    node2vec(1, 5, ring)  # which compiles it
    for arm, make in arms.items():
        if only and not arm.startswith(tuple(only)):
            continue
        what = {"part": "nodes", "method": "fastrp", "arm": arm, "nodes": len(labels), "edges": graph.nnz // 2}
        try:
            x, seconds = timed(make, rounds=2, enough=10)
        except (AttributeError, ImportError, TypeError, ValueError) as error:
            print(f"{arm}: {type(error).__name__}: {error}", flush=True)
            continue
        x = np.asarray(x, np.float64)
        x = (x - x.mean(0)) / x.std(0).clip(1e-12)
        model = LogisticRegression(max_iter=200).fit(x[known], labels[known])
        yield what, {"accuracy": float((model.predict(x[asked]) == labels[asked]).mean()), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--arm", action="append", default=[], help="of transport and nodes: how its name begins")
    parser.add_argument("--points", type=int, nargs="+", default=[300, 898])
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("sketching.peers", options.json)
    parts: dict[str, Callable[[], Iterator[Found]]] = {
        "transport": lambda: transports(options.points, options.arm),
        "agreement": agreement,
        "distance": lambda: distances(50),
        "nodes": lambda: nodes(options.packages, options.arm),
    }
    warnings.simplefilter("ignore")
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print(what, found, flush=True)


if __name__ == "__main__":
    main()
