"""Spectral bases of clouds of points: smoothed probes beside the operator that smooths them, on a sphere.

    pip install robust-laplacian
    OMP_NUM_THREADS=1 python -m benchmarks.kernels.eigenbases --json benchmarks/results/kernels.jsonl

2000 points of a sphere, even or four times as dense at a pole; how much of the spherical harmonics up to degree three
lies in 16 components (1 is all), where they are orthonormal at the points. The median of three draws; seconds of the
processor, on a machine that others used too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from benchmarks.common.rows import Rows, add_option
from eckart.kernels.learned_eigenbasis import ProbeEigenbasis


def sphere(count: int, even: bool, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((8 * count, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    kept = rng.uniform(size=len(x)) < (1 if even else (1 + x[:, 2] * 0.6) / 1.6)
    return x[kept][:count]


def harmonics(x: np.ndarray) -> np.ndarray:
    """Polynomials up to degree three at the points, which on a sphere are the 16 harmonics."""
    powers = [(a, b, c) for a in range(4) for b in range(4 - a) for c in range(4 - a - b)]
    table = np.stack([x[:, 0] ** a * x[:, 1] ** b * x[:, 2] ** c for a, b, c in powers], 1)
    u, s, _ = np.linalg.svd(table, full_matrices=False)
    return u[:, s > 1e-9 * s[0]]


def graph(x: np.ndarray, neighbors: int = 20) -> np.ndarray:
    """Eigenvectors of the normalised adjacency of mutual and other nearest neighbours, by their Gaussian weights."""
    far, near = cKDTree(x).query(x, neighbors)
    weight = np.exp(-2 * np.square(far / np.median(far[:, -1])))
    rows = np.repeat(np.arange(len(x)), neighbors)
    a = sparse.csr_array((weight.ravel(), (rows, near.ravel())), shape=(len(x), len(x)))
    a = (a + a.T) / 2
    root = sparse.diags_array(np.asarray(a.sum(1)).ravel() ** -0.5)
    found: np.ndarray = root @ eigsh(root @ a @ root, 16, v0=np.ones(len(x)))[1]
    return found


def robust(x: np.ndarray) -> np.ndarray:
    """Eigenvectors of robust-laplacian's Laplacian of a cloud of points."""
    import robust_laplacian

    stiff, mass = robust_laplacian.point_cloud_laplacian(x)
    found: np.ndarray = eigsh(stiff, 16, mass, sigma=-1e-6, v0=np.ones(len(x)))[1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Rows("kernels.eigenbases", parser.parse_args().json)

    def probes(count: int | None) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: ProbeEigenbasis(16, n_probes=count, random_state=0).fit(x).components_

    arms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "100 probes": probes(100),
        "500 probes": probes(500),
        "2000 probes": probes(2000),
        "the limit of many probes": probes(None),
        "eigenvectors of the graph of neighbours": graph,
        "robust-laplacian": robust,
    }
    for even in (True, False):
        for arm, basis in arms.items():
            shares, seconds = [], []
            for seed in range(3):
                x = sphere(2000, even, seed)
                begun = time.process_time()
                try:
                    found = basis(x)
                except ImportError as missing:
                    print(missing)
                    break
                seconds.append(time.process_time() - begun)
                shares.append(float(np.square(np.linalg.qr(found)[0].T @ harmonics(x)).sum()) / 16)
            if not shares:
                continue
            what: dict[str, Any] = {"part": "sphere", "method": "learned-eigenbasis", "arm": arm, "points": 2000}
            what |= {"sampling": "even" if even else "four times as dense at a pole", "draws": 3}
            row = {"share": float(np.median(shares)), "cpu_seconds": float(np.median(seconds))}
            print(what, row, flush=True)
            rows.add(what, row)


if __name__ == "__main__":
    main()
