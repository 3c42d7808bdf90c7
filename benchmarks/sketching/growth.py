"""Growth of time and memory of every sketch with the sizes that it has.

    OMP_NUM_THREADS=1 python -m benchmarks.sketching.growth [--only NAME] [--json FILE]

Each size is a process of its own, as in `benchmarks.linalg.growth`: processor seconds of one thread, and what it adds
to what it held with the data. Exponents are slopes of straight lines through the logarithms, of memory without what is
less than a MiB.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from scipy import sparse

from benchmarks.common.rows import Rows, add_option
from benchmarks.linalg.growth import Call, Growth, growth, low
from benchmarks.sketching.seconds import grid
from eckart.linalg.inverse_fisher import InverseFisher
from eckart.linalg.spgemm import matmul_sparse
from eckart.sketching.anncur import search_by_cur
from eckart.sketching.dense_sketch_regression import sketched_lstsq
from eckart.sketching.dpp_least_squares import dpp_design
from eckart.sketching.fastrp import node_embedding
from eckart.sketching.greedy_bcd import block_descent
from eckart.sketching.lp_sensitivity import lp_sample
from eckart.sketching.sinkhorn_newton_sparse import sinkhorn_newton
from eckart.sketching.sketched_sqp import minimize_equality
from eckart.sketching.sliced_wasserstein_cv import sliced_wasserstein
from eckart.sketching.spectral_sparsifier import sparsify_graph
from eckart.sketching.spright import Spectrum, sparse_hadamard
from eckart.sketching.streaming_eigenvector import top_eigenvector
from eckart.sketching.teddy import sparsify_edges


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    found: np.ndarray = np.random.default_rng(seed).standard_normal(shape)
    return found


def searched(items: int) -> Call:
    scores = low(120, items, 10)
    return lambda: search_by_cur(
        scores[:100], lambda q, i: scores[100 + q][i], 20, k=10, anchors=50, budget=100, generator=0
    )


def streamed(n: int = 20_000, p: int = 100, kept: int = 20) -> Call:
    x = low(n, p, 5)
    return lambda: top_eigenvector(x, kept, generator=0)


def multiplied(n: int) -> Call:
    a = sparse.csr_array(sparse.random_array((n, n), density=10 / n, rng=np.random.default_rng(0)))
    return lambda: matmul_sparse(a, a)


def regressed(n: int = 20_000, d: int = 50) -> Call:
    a = normal(n, d)
    b = a.sum(1) + normal(n, seed=1)
    return lambda: sketched_lstsq(a, b, generator=0)


def fisher(m: int = 64, d: int = 50_000) -> Call:
    g, x = torch.from_numpy(normal(m, d)), torch.from_numpy(normal(d, seed=1))
    return lambda: InverseFisher(g, 1e-2).multiply(x)


def graph(edges: int) -> sparse.csr_array:
    """Undirected, of degree 20 in the mean."""
    n, rng = edges // 10, np.random.default_rng(0)
    half = sparse.coo_array((np.ones(edges), (rng.integers(n, size=edges), rng.integers(n, size=edges))), shape=(n, n))
    return sparse.csr_array(half + half.T)


def embedded(edges: int, components: int = 64) -> Call:
    a = graph(edges)
    return lambda: node_embedding(a, components, generator=0)


def designed(n: int = 4000, m: int = 20) -> Call:
    phi = np.polynomial.legendre.legvander(np.random.default_rng(0).uniform(-1, 1, n), m - 1)
    return lambda: dpp_design(phi, 2 * m, generator=0)


def transported(n: int) -> Call:
    x, y = normal(n, 4), normal(n, 4, seed=1) + 0.5
    cost = np.square(x[:, None] - y).sum(-1)
    return lambda: sinkhorn_newton(cost, reg=float(np.ptp(cost)) / 200)


def pruned(edges: int) -> Call:
    a = graph(edges)
    return lambda: sparsify_edges(a, 0.5)


def sliced(n: int = 10_000, lines: int = 50) -> Call:
    x, y = normal(n, 16), normal(n, 16, seed=1) + 0.1
    return lambda: sliced_wasserstein(x, y, projections=lines, generator=0)


def sampled(n: int = 20_000, d: int = 10) -> Call:
    a = np.random.default_rng(0).standard_t(1.5, (n, d))
    return lambda: lp_sample(a, 200.0, generator=0)


def constrained(n: int) -> Call:
    """A quartic function under n/10 linear equations."""

    def solved(size: int) -> Call:
        g, target = torch.from_numpy(normal(size // 10, size)), torch.from_numpy(normal(size, seed=1))
        return lambda: minimize_equality(
            lambda x: ((x - target).square() + (x - target) ** 4 / 10).sum(), lambda x: g @ x - 1, np.zeros(size)
        )

    solved(10)()  # what is loaded at the first call is no cost of a size
    return solved(n)


def sparsified(nodes: int) -> Call:
    a = grid(round(nodes**0.5))
    return lambda: sparsify_graph(a, walkers=16, generator=0)


def descended(n: int = 10_000, steps: int = 2000, block: int = 20) -> Call:
    """A Laplacian of a grid and the identity, in turn."""
    a = grid(round(n**0.5))
    h = sparse.csr_array(sparse.diags_array(np.asarray(a.sum(1)).ravel() + 1) - a)
    b = normal(h.shape[0])
    return lambda: block_descent(h, b, block=block, selection="cyclic", tolerance=0.0, iterations=steps)


def transformed(bits: int = 24, terms: int = 16) -> Call:
    rng = np.random.default_rng(0)
    f = Spectrum(rng.integers(0, 2, (terms, bits)).astype(np.uint8), rng.choice([-1.0, 1.0], terms))
    return lambda: sparse_hadamard(f.predict, bits, terms, generator=0)


GROWTHS = (
    Growth("anncur", "items", "100 training queries, 20 others", (10_000, 20_000, 40_000, 80_000), searched, 1),
    Growth("streaming-eigenvector", "rows", "100 columns, 20 kept", (5000, 10_000, 20_000, 40_000), streamed, 1),
    Growth("streaming-eigenvector", "rows kept", "20,000 x 100", (10, 20, 40, 80), lambda k: streamed(kept=k), 1),
    Growth("spgemm-rowwise-hash", "rows", "10 entries in each", (10_000, 20_000, 40_000, 80_000), multiplied, 1),
    Growth("dense-sketch-regression", "rows", "50 columns", (25_000, 50_000, 100_000, 200_000), regressed, 1),
    Growth("dense-sketch-regression", "columns", "20,000 rows", (50, 100, 200, 400), lambda d: regressed(d=d), 3),
    Growth("mfac", "gradients", "of 50,000", (32, 64, 128, 256), fisher, 2),
    Growth("mfac", "length", "64 gradients", (25_000, 50_000, 100_000, 200_000), lambda d: fisher(d=d), 1),
    Growth("fastrp", "edges", "64 components, degree 20", (50_000, 100_000, 200_000, 400_000), embedded, 1),
    Growth("fastrp", "components", "100,000 edges", (32, 64, 128, 256), lambda d: embedded(100_000, d), 1),
    Growth("dpp-least-squares", "candidates", "20 features", (4000, 8000, 16_000, 32_000), designed, 1),
    Growth("dpp-least-squares", "features", "4000 candidates", (10, 20, 40, 80), lambda m: designed(m=m), 2),
    Growth("sinkhorn-newton-sparse", "points on a side", "range / reg 200", (200, 400, 800, 1600), transported, 3),
    Growth("teddy", "edges", "degree 20", (50_000, 100_000, 200_000, 400_000), pruned, 1),
    Growth("sliced-wasserstein-cv", "points", "16 columns, 50 lines", (5000, 10_000, 20_000, 40_000), sliced, 1),
    Growth("sliced-wasserstein-cv", "lines", "10,000 x 16", (50, 100, 200, 400), lambda k: sliced(lines=k), 1),
    Growth("lp-sensitivity", "rows", "10 columns", (20_000, 40_000, 80_000, 160_000), sampled, 1),
    Growth("sketched-sqp", "unknowns", "a tenth as many equations", (100, 200, 400, 800), constrained, 3),
    Growth("spectral-sparsifier", "nodes", "of a grid", (32**2, 64**2, 128**2, 256**2), sparsified, 1),
    Growth("greedy-bcd", "coordinates", "2000 steps of 20", (50**2, 100**2, 200**2, 400**2), descended, 1),
    Growth("spright", "bits", "16 coefficients", (24, 48, 96, 192), transformed, 2),
    Growth("spright", "coefficients", "24 bits", (16, 32, 64, 128), lambda k: transformed(terms=k), 2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help="methods whose name has this in it")
    add_option(parser)
    options: Any = parser.parse_args()
    torch.set_num_threads(1)
    growth(Rows("sketching.growth", options.json), options.only, GROWTHS)


if __name__ == "__main__":
    main()
