"""Randomly pivoted Cholesky of a kernel beside its authors' program: processor seconds, and what is left of the trace.

    git clone the repository Randomly-Pivoted-Cholesky of eepperly into DIR
    OMP_NUM_THREADS=1 python -m benchmarks.kernels.pivots --authors DIR --json benchmarks/results/kernels.jsonl

A Gaussian kernel of 100,000 points and a thousand pivots; two draws, each arm after the other in each of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common.rows import Rows, add_option
from benchmarks.kernels.siblings import measured, median_distance, qm9
from eckart.kernels import Nystroem

N, K, SEEDS = 100_000, 1000, 2


def smile() -> np.ndarray:
    """(100000, 2): two eyes, a mouth and an outline, of which the eyes have a thousandth of the points."""
    rng = np.random.default_rng(0)
    angle = rng.random(N) * 2 * np.pi
    outline = 10 * np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.linspace(-4, 4, N // 3)
    outline[: N // 3] = np.stack([x, x**2 / 16 - 5], 1)
    eyes = np.where(rng.random(N // 1000)[:, None] < 0.5, [-4.0, 4.0], [-3.0, 4.0]) + 0.1 * rng.standard_normal(
        (N // 1000, 2)
    )
    outline[-len(eyes) :] = eyes
    return outline[rng.permutation(N)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", required=True, metavar="DIR", help="where their repository lies")
    add_option(parser)
    options = parser.parse_args()
    sys.path.insert(0, options.authors)
    import rpcholesky
    from matrix import KernelMatrix

    rows = Rows("kernels.pivots", options.json)
    molecules = qm9()[0][:N]
    for data, x, width in (("QM9", molecules, 0.5 * median_distance(molecules)), ("a smile", smile(), 0.2)):

        def theirs(run: Callable[..., Any], x: np.ndarray = x, width: float = width) -> Callable[[int], np.ndarray]:
            return lambda seed: run(KernelMatrix(x, "gaussian", width), K).get_left_factor()

        def ours(seed: int, x: np.ndarray = x, width: float = width) -> np.ndarray:
            return Nystroem(n_components=K, gamma=1 / (2 * width**2), random_state=seed).fit_transform(x)

        arms: dict[str, Callable[[int], np.ndarray]] = {
            "eckart": ours,
            "authors': by blocks with rejection": theirs(rpcholesky.accelerated_rpcholesky),
            "authors': one column after the other": theirs(rpcholesky.simple_rpcholesky),
        }
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
        for seed in range(SEEDS):
            for arm, run in arms.items():
                factor, cost = measured(lambda run=run, seed=seed: run(seed))
                found[arm].append({"seconds": cost["seconds"], "left": 1 - float(np.square(factor).sum()) / N})
                print(data, seed, arm, found[arm][-1], flush=True)
        for arm, each in found.items():
            numbers = {name: float(np.median([one[name] for one in each])) for name in ("seconds", "left")}
            numbers["times"] = numbers["seconds"] / float(np.median([one["seconds"] for one in found["eckart"]]))
            rows.add({"data": data, "n": N, "k": K, "arm": arm, "seeds": SEEDS}, numbers)


if __name__ == "__main__":
    main()
