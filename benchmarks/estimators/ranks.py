"""How often a rank is found, and how near columns and rows of a table come to its SVD. No seconds.

    pip install scikit-learn
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.ranks --json benchmarks/results/estimators.jsonl

Digits are those of scikit-learn (1797 pictures of 8 x 8).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from benchmarks.common.rows import Rows, add_option
from eckart.estimators.rank_selection import select_rank
from eckart.linalg.cur import cur
from eckart.linalg.pivoted_qr import strong_rrqr
from eckart.linalg.sketches import SparseSign

SHAPE, RANK = (200, 100), 5
EDGE = np.sqrt(SHAPE[0]) + np.sqrt(SHAPE[1])
"""The largest singular value of noise of deviation 1."""


def kaiser(x: np.ndarray) -> int:
    """Eigenvalues of the correlation matrix above 1."""
    return int((np.linalg.eigvalsh(np.corrcoef(x.T)) > 1).sum())


def minka(x: np.ndarray) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(PCA("mle").fit(x).n_components_)


ARMS: dict[str, Callable[[np.ndarray], int]] = {
    "threshold of Gavish and Donoho": lambda x: select_rank(x).value.rank,
    "the same, noise known": lambda x: select_rank(x, noise=1.0).value.rank,
    "parallel analysis": lambda x: select_rank(x, "parallel", generator=0).value.rank,
    "scikit-learn's PCA, Minka's": minka,
    "eigenvalues above 1": kaiser,
}


def ranks(draws: int, rows: Rows) -> None:
    """Share of draws in which the rank is found, by the size of the signal and the kind of noise."""
    for noise in ("white", "by column"):
        for size in (1.0, 1.5, 3.0):
            found: dict[str, list[int]] = {name: [] for name in ARMS}
            for seed in range(draws):
                rng = np.random.default_rng(seed)
                left, right = (np.linalg.qr(rng.standard_normal((n, RANK)))[0] for n in SHAPE)
                deviation = rng.uniform(0.5, 2, SHAPE[1]) if noise == "by column" else np.ones(SHAPE[1])
                deviation /= np.sqrt(np.square(deviation).mean())
                x = size * EDGE * left @ right.T + rng.standard_normal(SHAPE) * deviation
                for name, arm in ARMS.items():
                    found[name].append(arm(x))
            for name, each in found.items():
                what = {"part": "ranks", "method": "rank-selection", "arm": name, "noise": noise, "size": size}
                value = {"exact": float(np.mean(np.array(each) == RANK)), "mean": float(np.mean(each))}
                rows.add(what | {"draws": draws, "rank": RANK}, value)
                print(what, value, flush=True)


def between(x: np.ndarray, columns: np.ndarray, chosen: np.ndarray) -> float:
    """|X - C C^+ X R^+ R|."""
    c, r = np.linalg.qr(x[:, columns])[0], np.linalg.qr(x[chosen].T)[0]
    return float(np.linalg.norm(x - c @ (c.T @ x @ r) @ r.T))


def columns(draws: int, rows: Rows) -> None:
    """Errors by that of the SVD of the same rank, of columns and rows of the digits."""
    x = load_digits().data
    left, values, right = np.linalg.svd(x, full_matrices=False)
    for k in (8, 16, 32):
        best = float(np.sqrt(np.square(values[k:]).sum()))
        down, across = np.square(left[:, :k]).sum(1) / k, np.square(right[:k]).sum(0) / k
        found: dict[str, list[float]] = {"pivots": [], "pivots, swapped": [], "by leverage": [], "any": []}
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            made = cur(x, k, generator=seed)
            found["pivots"].append(float(np.linalg.norm(x - made.of(x))))
            sketch = SparseSign(2 * k + 8, len(x), seed).apply(x)
            picked = strong_rrqr(sketch, k, bound=1.1).order[:k]
            found["pivots, swapped"].append(between(x, picked, strong_rrqr(x[:, picked].T, k, bound=1.1).order[:k]))
            held = [rng.choice(len(p), k, replace=False, p=p) for p in (across, down)]
            found["by leverage"].append(between(x, *held))
            seen = [rng.choice(np.flatnonzero(p > 1e-12), k, replace=False) for p in (across, down)]
            found["any"].append(between(x, *seen))
        for name, each in found.items():
            what = {"part": "columns", "method": "cur", "arm": name, "k": k, "draws": draws}
            value = {"median": float(np.median(each)) / best, "q95": float(np.quantile(each, 0.95)) / best}
            rows.add(what, value)
            print(what, value, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", choices=("ranks", "columns"), help="of both")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("estimators.ranks", options.json)
    for part in (ranks, columns):
        if options.only in (None, part.__name__):
            part(options.draws, rows)


if __name__ == "__main__":
    main()
