"""Kernel ridge regression on 100,000 molecules in two gigabytes, beside what else fits a machine.

python -m benchmarks.kernels.ridge_at_scale --json benchmarks/results/kernels.jsonl [--arms "pcg,subset"] [--steps 40]

Data: pip install --no-deps qm9pack==1.0.3. Rows are the eigenvalues of Coulomb matrices (29), each by its deviation,
the target is the energy of the highest orbital in eV. Width and alpha have the least error at 2000 molecules behind
the first 6000, fitted to these; errors are of 2000 molecules behind the first 100,000, which no choice has seen.
Each arm has a process of its own, whose peak of memory is that of all of it, Python and data included. "pcg" takes
`--steps` at once and keeps what it has among temporary files: started again it goes on from what is left of y, with
a preconditioner made anew, whose seconds count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.rows import Rows, add_option
from benchmarks.kernels.siblings import median_distance, qm9

TEST = slice(100_000, 102_000)
WIDTH, ALPHA, TOL = 0.45, 0.1, 1e-3
"""Of the median distance; of |f|^2; of |y|."""
Case = dict[str, Any]
CASES: list[Case] = [
    {"arm": "pcg", "n": 20_000, "k": 1000},
    {"arm": "scikit-learn's KernelRidge", "n": 20_000},
    {"arm": "subset", "n": 100_000, "k": 1000},
    {"arm": "scikit-learn's Nystroem and Ridge", "n": 100_000, "k": 1000},
    {"arm": "pcg", "n": 100_000, "k": 1000},
]


def molecules(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Rows and energies to fit, those to predict, and gamma; energies less the mean of the first."""
    x, y = qm9()
    x = (x - x[:n].mean(0)) / x[:n].std(0)
    gamma = 1 / (2 * (WIDTH * median_distance(x)) ** 2)
    return x[:n].copy(), y[:n] - y[:n].mean(), x[TEST].copy(), y[TEST] - y[:n].mean(), gamma


def by_gradients(what: Case, x: np.ndarray, y: np.ndarray, new: np.ndarray, gamma: float, steps: int) -> Any:
    """What is predicted, and how it ended; of the residual that an earlier start has left where there was one."""
    import torch

    from eckart.kernels import KernelRidge, as_kernel
    from eckart.kernels._gram import Gram

    kept = Path(tempfile.gettempdir()) / f"ridge-{what['n']}-{what['k']}-{WIDTH}-{ALPHA}.npz"
    held = dict(np.load(kept)) if kept.exists() else {}
    begun, goal, c = time.process_time(), y, np.zeros(len(x))
    if held:
        c = held["coefficients"]
        gram = Gram(as_kernel("rbf", x.shape[1], gamma=gamma), torch.from_numpy(x))
        goal = y - gram.times(torch.from_numpy(c)[:, None])[:, 0].numpy() - ALPHA * c
    tol = TOL * float(np.linalg.norm(y) / np.linalg.norm(goal))
    made = KernelRidge(
        gamma=gamma, alpha=ALPHA, solver="pcg", n_components=what["k"], max_iter=steps, tol=tol, random_state=0
    ).fit(x, goal)
    seconds = float(held.get("seconds", 0.0)) + time.process_time() - begun
    done = int(held.get("steps", 0)) + made.n_iter_
    coefficients = c + made.dual_coef_
    rest = made.residual_ * float(np.linalg.norm(goal) / np.linalg.norm(y))
    if not made.converged_:
        np.savez(kept, coefficients=coefficients, steps=done, seconds=seconds)
    made.dual_coef_ = coefficients
    return made.predict(new), {"steps taken": done, "residual": rest, "seconds": seconds}, made.converged_


def measured(what: Case, steps: int) -> tuple[Case, bool]:
    """Errors, processor seconds of the fit and peak of memory of this process; whether it came to its end."""
    from eckart.machine import peak_rss_bytes

    warnings.simplefilter("ignore")
    x, y, new, truth, gamma = molecules(what["n"])
    begun, found, done, more = time.process_time(), np.zeros(0), True, {}
    if what["arm"] == "pcg":
        found, more, done = by_gradients(what, x, y, new, gamma, steps)
    elif what["arm"] == "subset":
        from eckart.kernels import KernelRidge

        made = KernelRidge(gamma=gamma, alpha=ALPHA, solver="subset", n_components=what["k"], random_state=0).fit(x, y)
        more = {"seconds": time.process_time() - begun}
        found = made.predict(new)
    else:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.kernel_ridge import KernelRidge as Peer
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline

        peer: Any = Peer(alpha=ALPHA, kernel="rbf", gamma=gamma)
        if "k" in what:
            features = Nystroem(gamma=gamma, n_components=what["k"], random_state=0)
            peer = make_pipeline(features, Ridge(ALPHA, fit_intercept=False))
        peer.fit(x, y)
        more = {"seconds": time.process_time() - begun}
        found = peer.predict(new)
    error = found - truth
    row = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
    return row | more | {"peak mib": (peak_rss_bytes() or 0) / 2**20}, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default="", help="some of them, by commas; all where it is left out")
    parser.add_argument("--rows", type=int, help="of these numbers only")
    parser.add_argument("--steps", type=int, default=40)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("kernels.ridge_at_scale", options.json)
    qm9()  # read once, by a process that is not measured
    for case in CASES:
        named = not options.arms or case["arm"] in options.arms.split(",")
        what = {"part": "at scale", "method": "kernel-ridge", "data": "QM9", "width": WIDTH, "alpha": ALPHA, **case}
        if not named or (options.rows and options.rows != case["n"]) or rows.get(what) is not None:
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            found, done = alone.submit(measured, what, options.steps).result()
        print(what, found, "" if done else "to be started again", flush=True)
        if done:
            rows.add(what, found)


if __name__ == "__main__":
    main()
