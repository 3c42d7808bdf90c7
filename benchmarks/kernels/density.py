"""Densities in many dimensions and in two: widths by rule and by what is left out, and seconds beside peers.

But for seconds, every number is the median of five draws: of the points, of the pictures or of the molecules.

pip install scikit-learn scipy KDEpy; pip install --no-deps qm9pack==1.0.3
python -m benchmarks.kernels.density
"""

from __future__ import annotations

import argparse
import gzip
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity as Theirs

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from benchmarks.kernels.siblings import qm9
from eckart.kernels.kde_large_dim import KernelDensity, thresholds

NAME = "kde-large-dim"
RULES = ("loo", "large-dim", "scott", "silverman")
SHAPES: tuple[Literal["round", "diagonal", "full"], ...] = ("round", "diagonal", "full")
SEEDS = 5
FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")


def best_of_all(x: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """The width that is best on the test, and its mean logarithm."""
    tried = {h: KernelDensity(h, shape="round").fit(x).score(new) / len(new) for h in np.geomspace(0.1, 2, 32)}
    best = max(tried, key=lambda h: tried[h])
    return float(best), tried[best]


def gaussian() -> Iterator[Found]:
    """N(0, I): how far each rule's estimate is from the truth, by dimension, and of how many points it is made."""
    for d, seed in product((2, 10, 20, 30, 50), range(SEEDS)):
        rng = np.random.default_rng((d, seed))
        x, new = rng.standard_normal((4000, d)), rng.standard_normal((1000, d))
        truth = float((-np.square(new).sum(1) / 2).mean() - d / 2 * np.log(2 * np.pi))
        width, score = best_of_all(x, new)
        limits = thresholds(len(x), d)
        what = {"part": "gaussian", "method": NAME, "n": len(x), "d": d, "seed": seed}
        yield what | {"rule": "best on the test"}, {"h": width, "gap": (truth - score) / d, **limits}
        for rule in RULES:
            fitted = KernelDensity(rule, shape="round").fit(x)  # type: ignore[arg-type]
            found = {
                "h": fitted.bandwidth_,
                "gap": (truth - fitted.score(new) / len(new)) / d,
                "points": fitted.effective_points_,
                "regime": fitted.regime_,
            }
            yield what | {"rule": rule}, found


def drawn(table: np.ndarray, dimensions: tuple[int, ...], part: str) -> Iterator[Found]:
    """Rows of a table on their whitened principal axes: the mean logarithm of the density of others, by dimension."""
    for d, seed in product(dimensions, range(SEEDS)):
        rows = table[np.random.default_rng(seed).permutation(len(table))[:6000]]
        z = PCA(d, svd_solver="full", whiten=True).fit_transform(rows)
        x, new = z[:4000], z[4000:5000]
        width, score = best_of_all(x, new)
        what = {"part": part, "method": NAME, "n": len(x), "d": d, "seed": seed}
        yield what | {"rule": "best on the test"}, {"h": width, "score": score / d}
        for rule in RULES:
            fitted = KernelDensity(rule, shape="round").fit(x)  # type: ignore[arg-type]
            found = {"h": fitted.bandwidth_, "score": fitted.score(new) / len(new) / d}
            yield what | {"rule": rule}, found | {"points": fitted.effective_points_}


def fashion() -> Iterator[Found]:
    """Pictures of clothes."""
    pictures = np.frombuffer(gzip.decompress(FASHION.read_bytes()), np.uint8, offset=16).reshape(-1, 784) / 255.0
    return drawn(pictures, (5, 10, 20, 50), "fashion")


def molecules() -> Iterator[Found]:
    """QM9's molecules, 29 eigenvalues each."""
    return drawn(qm9()[0], (5, 10, 20), "molecules")


def matrices() -> Iterator[Found]:
    """Two bananas in d dimensions whose axes differ a hundred times: kernels round, diagonal, full, and by a matrix."""
    for d, seed in product((2, 5, 10), range(SEEDS)):
        rng = np.random.default_rng((d, seed))
        turn = np.linalg.qr(rng.standard_normal((d, d)))[0] * np.geomspace(1, 100, d)
        y = rng.standard_normal((3000, d))
        y[:, 1] += 0.5 * y[:, 0] ** 2
        x, new = y[:2000] @ turn.T, y[2000:] @ turn.T
        # The density of y has a determinant of one, as has a shift of one axis by another.
        z = y[2000:].copy()
        z[:, 1] -= 0.5 * z[:, 0] ** 2
        truth = float(
            -np.square(z).sum(1).mean() / 2 - d / 2 * np.log(2 * np.pi) - np.log(np.geomspace(1, 100, d)).sum()
        )
        # Scott's width, as a matrix in the units of x.
        matrix = np.cov(x.T) * len(x) ** (-2 / (d + 4))
        scores = {f"{shape}, loo": KernelDensity("loo", shape=shape).fit(x).score(new) for shape in SHAPES}
        scores["the matrix of Scott's rule"] = KernelDensity(matrix).fit(x).score(new)
        scores["scipy"] = float(gaussian_kde(x.T).logpdf(new.T).sum())
        for arm, score in scores.items():
            what = {"part": "matrices", "method": NAME, "n": len(x), "d": d, "arm": arm, "seed": seed}
            yield what, {"gap": truth - score / len(new)}


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """The median of three, after one run more, in processor seconds."""
    taken = []
    found = run()
    for _ in range(3):
        start = time.process_time()
        found = run()
        taken.append(time.process_time() - start)
    return float(np.median(taken)), found


def speed() -> Iterator[Found]:
    """Two dimensions, 20000 points and 2000 queries, one width: seconds to estimate, and the largest error."""
    from KDEpy import FFTKDE

    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((20000, 2)), rng.standard_normal((2000, 2))
    h = len(x) ** (-1 / 6)
    start = time.process_time()
    binned = KernelDensity(h, shape="round", binned=True).fit(x)
    fit = time.process_time() - start
    exact = KernelDensity(h, shape="round").fit(x)
    width = h * float(np.sqrt(x.var(0).mean()))
    trees = Theirs(bandwidth=width, rtol=1e-6).fit(x)
    scipy = gaussian_kde(x.T, width / np.sqrt(np.cov(x.T).trace() / 2))
    scipy.set_bandwidth(scipy.factor)

    def grid() -> np.ndarray:
        """KDEpy has no estimates at points: a grid of 256 x 256 and the nearest node of it."""
        nodes, values = FFTKDE(bw=width).fit(x).evaluate((256, 256))
        low, high = nodes.min(0), nodes.max(0)
        at = np.rint((new - low) / (high - low) * 255).astype(int).clip(0, 255)
        return np.log(values.reshape(256, 256)[at[:, 0], at[:, 1]])

    arms: dict[str, Callable[[], np.ndarray]] = {
        "binned": lambda: binned.score_samples(new),
        "exact": lambda: exact.score_samples(new),
        "scipy": lambda: scipy.logpdf(new.T),
        "scikit-learn": lambda: trees.score_samples(new),
        "KDEpy, nearest node": grid,
    }
    truth = np.exp(exact.score_samples(new))
    for arm, run in arms.items():
        taken, found = seconds(run)
        what = {"part": "speed", "method": NAME, "arm": arm, "n": len(x), "queries": len(new), "d": 2}
        error = float(np.abs(np.exp(found) - truth).max() / truth.max())
        yield what, {"seconds": taken, "error": error} | ({"fit": fit} if arm == "binned" else {})


def left_out() -> Iterator[Found]:
    """The best of 48 widths by what is left out, beside five folds of scikit-learn: seconds and the width found."""
    x = np.random.default_rng(1).standard_normal((1500, 5))
    ours, fitted = seconds(lambda: KernelDensity("loo", shape="round").fit(x))
    spread = float(np.sqrt(x.var(0).mean()))
    widths = spread * np.geomspace(0.1, 2, 48)
    start = time.process_time()
    search = GridSearchCV(Theirs(), {"bandwidth": widths}, cv=5).fit(x)
    theirs = time.process_time() - start
    what = {"part": "left out", "method": NAME, "n": len(x), "d": 5}
    found = {"seconds": ours, "theirs": theirs, "times": theirs / ours}
    yield what, found | {"h": fitted.bandwidth_ * spread, "their h": float(search.best_params_["bandwidth"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.density", options.json)
    parts = {"speed": speed, "left out": left_out}
    draws = {"gaussian": gaussian, "fashion": fashion, "molecules": molecules, "matrices": matrices}
    for name in options.only or [*parts, *draws]:
        for what, found in parts[name]() if name in parts else medians(draws[name]()):
            rows.add(what, found)
            print(what, found, flush=True)


if __name__ == "__main__":
    main()
