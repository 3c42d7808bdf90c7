"""What sketches cost beside what they stand for: regressions, changes of a graph, products, Fisher, embeddings.

    OMP_NUM_THREADS=1 python -m benchmarks.sketching.seconds [--only PART ...] [--json FILE]

Processor seconds of one thread, the least of some rounds in which the arms take turns; peak memory as tracemalloc
counts it, in a round of its own.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from benchmarks.common.rows import Rows, add_option
from eckart.linalg.graphs import edges_of
from eckart.linalg.inverse_fisher import InverseFisher
from eckart.linalg.spgemm import matmul_sparse
from eckart.sketching.dense_sketch_regression import sketched_lstsq
from eckart.sketching.fastrp import node_embedding, sparse_signs
from eckart.sketching.spectral_sparsifier import SpectralSparsifier, relative_condition
from eckart.sketching.spgemm_rowwise_hash import hashed_rows

Found = tuple[dict[str, Any], dict[str, Any]]
Call = Callable[[], Any]


def spent(make: Call) -> float:
    started = time.process_time()
    make()
    return time.process_time() - started


def in_turns(arms: Mapping[str, Call], rounds: int = 3, enough: float = 3.0) -> dict[str, float]:
    """The least processor seconds of each; an arm that takes long has one round."""
    found: dict[str, float] = {}
    for _ in range(rounds):
        for arm, make in arms.items():
            if found.get(arm, 0.0) < enough:
                found[arm] = min(found.get(arm, np.inf), spent(make))
    return found


def regressions() -> Iterator[Found]:
    """Least squares in d columns, and by how much |A x - b| is above the least."""
    for n, d in ((20_000, 50), (100_000, 50), (100_000, 150), (50_000, 400), (20_000, 800)):
        rng = np.random.default_rng(0)
        a = rng.standard_normal((n, d))
        b = a @ rng.standard_normal(d) + rng.standard_normal(n)
        arms: dict[str, Call] = {
            "lstsq (NumPy)": lambda a=a, b=b: np.linalg.lstsq(a, b, rcond=None)[0],
            "normal equations": lambda a=a, b=b: np.linalg.solve(a.T @ a, a.T @ b),
        }
        for kind in ("sparse-sign", "count", "srht"):
            arms[kind] = lambda a=a, b=b, kind=kind: sketched_lstsq(a, b, sketch=kind, generator=0).value
        arms["sparse-sign, refined"] = lambda a=a, b=b: sketched_lstsq(a, b, refine=True, generator=0).value
        least = np.linalg.norm(b - a @ arms["normal equations"]())
        for arm, seconds in in_turns(arms).items():
            what = {"part": "regression", "method": "dense-sketch-regression", "arm": arm, "rows": n, "columns": d}
            yield what, {"seconds": seconds, "above": float(np.linalg.norm(b - a @ arms[arm]()) / least - 1)}


def grid(side: int) -> sparse.csr_array:
    """side^2 nodes, their neighbours right, below and diagonally, weights in 1/2..2."""
    index = np.arange(side * side).reshape(side, side)
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:]), (index[:-1, :-1], index[1:, 1:])]
    u, v = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    weight = np.random.default_rng(0).uniform(0.5, 2, len(u))
    return sparse.csr_array((np.r_[weight, weight], (np.r_[u, v], np.r_[v, u])), shape=(side * side,) * 2)


def updates(changes: int = 20) -> Iterator[Found]:
    """Edges inserted and deleted one at a time, beside a sparsifier of the changed graph made anew."""
    for side in (32, 64, 128, 192):
        graph, rng = grid(side), np.random.default_rng(1)
        kept = SpectralSparsifier(walkers=16, random_state=0)
        fit = spent(lambda kept=kept, graph=graph: kept.fit(graph))
        before = kept.condition_number()
        starts = rng.integers(0, side * side - 1, changes)
        ends = [[[int(p), int(p + 3 * side + 7) % (side * side)]] for p in starts]
        insert = sum(spent(lambda e=e, kept=kept: kept.insert(e, [1.0])) for e in ends) / changes
        u, v, _ = edges_of(kept.sparsifier_)
        gone = [[[int(u[i]), int(v[i])]] for i in rng.choice(len(u), changes, replace=False)]
        delete = sum(spent(lambda e=e, kept=kept: kept.delete(e)) for e in gone) / changes
        fresh = SpectralSparsifier(walkers=16, random_state=0)
        rebuild = spent(lambda fresh=fresh, kept=kept: fresh.fit(kept.graph_))
        found = {"fit": fit, "insert": 1e3 * insert, "delete": 1e3 * delete, "rebuild": 1e3 * rebuild}
        found |= {"edges": kept.sparsifier_.nnz // 2, "fresh_edges": fresh.sparsifier_.nnz // 2, "before": before}
        found |= {"after": kept.condition_number(), "fresh": relative_condition(kept.graph_, fresh.sparsifier_)}
        found |= {"insert_gain": rebuild / insert, "delete_gain": rebuild / delete}
        what = {"part": "updates", "method": "spectral-sparsifier", "nodes": side * side, "of": graph.nnz // 2}
        yield what, found


def products() -> Iterator[Found]:
    """A^2 of a sparse A with ten entries a row, all of it and some of its entries."""
    for n in (5000, 20_000):
        a = sparse.csr_array(sparse.random_array((n, n), density=10 / n, rng=np.random.default_rng(0)))
        arms: dict[str, Call] = {
            "scipy": lambda a=a: a @ a,
            "eckart": lambda a=a: matmul_sparse(a, a),
            "eckart, two threads": lambda a=a: matmul_sparse(a, a, threads=2),
            "eckart, hash tables": lambda a=a: hashed_rows(a, a)[0],
            "scipy, then where A is": lambda a=a: (a @ a).multiply(a),
            "eckart, where A is": lambda a=a: matmul_sparse(a, a, mask=a),
            "eckart, five of each row": lambda a=a: matmul_sparse(a, a, top=5),
        }
        for arm, seconds in in_turns(arms, rounds=5).items():
            tracemalloc.start()
            arms[arm]()
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            what = {"part": "products", "method": "spgemm-rowwise-hash", "arm": arm, "rows": n, "entries": a.nnz}
            yield what, {"seconds": seconds, "mib": peak}


def recursion(gradients: Tensor, damping: float, x: Tensor) -> Tensor:
    """F^-1 x by the paper's recursion over the gradients: v_i = F_(i-1)^-1 g_i, q_i = m + g_i . v_i."""
    m = len(gradients)
    v, q = torch.zeros_like(gradients), gradients.new_zeros(m)
    for i, g in enumerate(gradients):
        v[i] = g / damping - v[:i].T @ ((v[:i] @ g) / q[:i])
        q[i] = m + g @ v[i]
    return x / damping - v.T @ ((v @ x) / q)


def fishers() -> Iterator[Found]:
    """F^-1 x of a Fisher matrix of m gradients, all that comes before it included."""
    for m, d in ((32, 100_000), (128, 100_000)):
        generator = torch.Generator().manual_seed(0)
        g = torch.randn(m, d, dtype=torch.float64, generator=generator)
        x = torch.randn(d, dtype=torch.float64, generator=generator)
        arms: dict[str, Call] = {
            "recursion, as published": lambda g=g, x=x: recursion(g, 1e-2, x),
            "Woodbury": lambda g=g, x=x: InverseFisher(g, 1e-2).multiply(x),
        }
        apart = float((arms["Woodbury"]() - recursion(g, 1e-2, x)).norm() / x.norm() * 1e-2)
        for arm, seconds in in_turns(arms).items():
            what = {"part": "Fisher", "method": "mfac", "arm": arm, "gradients": m, "length": d}
            yield what, {"seconds": seconds, "apart": apart}


def as_published(graph: sparse.csr_array, d: int, weights: Sequence[float]) -> np.ndarray:
    """The reference's way: float64, a list of all powers, each normalised, and then their weighted sum."""
    walk = sparse.diags_array(1 / np.maximum(graph.sum(1), 1)) @ graph
    power = sparse_signs(graph.shape[0], d, 1 / 3, np.random.default_rng(0))
    powers = []
    for _ in weights:
        power = walk @ power
        powers.append(power)
    found = np.zeros_like(power)
    for weight, each in zip(weights, powers, strict=True):
        found += weight * each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-12)
    return found


def embeddings() -> Iterator[Found]:
    """FastRP of a random graph of degree 20 in 128 numbers, and how far lengths of 1 and 2 are from the reference's."""
    weights = (0.0, 0.0, 1.0, 1.0)
    for n in (10_000, 100_000):
        rng = np.random.default_rng(0)
        half = sparse.coo_array((np.ones(10 * n), (rng.integers(n, size=10 * n), rng.integers(n, size=10 * n))))
        half.resize((n, n))
        graph = sparse.csr_array(half + half.T)
        narrow = graph.astype(np.float32)
        arms: dict[str, Call] = {
            "float64, all powers kept, as the reference": lambda g=graph: as_published(g, 128, weights),
            "eckart": lambda g=graph: node_embedding(g, 128, weights=weights, generator=0),
            "eckart, float32": lambda g=narrow: node_embedding(g, 128, weights=weights, generator=0),
        }
        reference = as_published(graph, 128, weights)
        for arm, seconds in in_turns(arms, rounds=5, enough=10.0).items():
            tracemalloc.start()
            apart = float(np.abs(arms[arm]() - reference).max())
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            what = {"part": "embedding", "method": "fastrp", "arm": arm, "nodes": n, "entries": graph.nnz}
            yield what, {"seconds": seconds, "mib": peak, "apart": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("sketching.seconds", options.json)
    parts: dict[str, Callable[[], Iterator[Found]]] = {
        "regression": regressions,
        "updates": updates,
        "products": products,
        "Fisher": fishers,
        "embedding": embeddings,
    }
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print(what, found, flush=True)


if __name__ == "__main__":
    main()
