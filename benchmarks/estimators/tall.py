"""Tall matrices: the exact SVD beside LAPACK's and scikit-learn's randomized one, and what is larger than memory.

    python -m benchmarks.estimators.tall

`exact`: 50,000 x 400 of rank 20 in noise, one thread, processor seconds, the least of three; the error is that of the
singular values, the largest by the first. `larger`: an array of Dask whose parts are made when they are asked for, in a
process of its own; peak is what the process adds to what it held before (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.extmath import randomized_svd

from benchmarks.common.rows import Rows, add_option
from eckart.estimators.online_orthogonal_dictionary import OrthogonalDictionary
from eckart.linalg.tall_svd import tall_svd

RANK = 20


def table(n: int, p: int, seed: int = 0) -> np.ndarray:
    """Rank 20 with values that fall to a tenth, in noise."""
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((n, RANK)) * np.geomspace(1, 0.1, RANK) @ rng.standard_normal((RANK, p))
    return low + 0.05 * rng.standard_normal((n, p))


def exact(rows: Rows) -> None:
    x = table(50_000, 400)
    truth = np.linalg.svd(x.T @ x, compute_uv=False)[:RANK] ** 0.5
    arms: dict[str, Callable[[], Any]] = {
        "eckart, 20 values": lambda: tall_svd(x, RANK).values,
        "eckart, all values": lambda: tall_svd(x).values,
        "scikit-learn, randomized, 20 values": lambda: randomized_svd(x, RANK, random_state=0)[1],
        "NumPy, all values": lambda: np.linalg.svd(x, full_matrices=False)[1],
    }
    for arm, run in arms.items():
        seconds, values = [], None
        for _ in range(1 if arm.startswith("NumPy") else 3):
            before = time.process_time()
            values = run()
            seconds.append(time.process_time() - before)
        error = float(np.abs(values[:RANK] - truth).max() / truth[0])
        what = {"part": "exact", "arm": arm, "rows": len(x), "columns": x.shape[1]}
        rows.add(what, {"cpu_seconds": min(seconds), "error": error})
        print(arm, min(seconds), error, flush=True)


def memory(field: str) -> float:
    """A field of /proc/self/status in megabytes."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _larger(task: str, n: int, p: int, block: int, found: Any) -> None:
    import dask
    import dask.array

    parts = [dask.delayed(table)(block, p, seed) for seed in range(n // block)]
    blocks = [dask.array.from_delayed(part, (block, p), dtype=np.float64) for part in parts]
    x = dask.array.concatenate(blocks)
    with dask.config.set(scheduler="single-threaded"):
        Path("/proc/self/clear_refs").write_text("5")
        before, started = memory("VmRSS"), time.process_time()
        if task == "tall_svd":
            answer = tall_svd(x, RANK).values
        else:
            answer = OrthogonalDictionary(method="online", batch_size=4096, random_state=0).fit(x).components_
        spent = time.process_time() - started
    peak = memory("VmHWM") - before
    size = {"megabytes": 8 * n * p / 1e6, "peak_megabytes": peak, "cpu_seconds": spent}
    found.put(size | {"finite": bool(np.isfinite(answer).all())})


def larger(rows: Rows) -> None:
    context = multiprocessing.get_context("spawn")
    for task, n in (("tall_svd", 4_000_000), ("tall_svd", 1_000_000), ("dictionary", 1_000_000)):
        queue = context.Queue()
        process = context.Process(target=_larger, args=(task, n, 64, 100_000, queue))
        process.start()
        found = queue.get()
        process.join()
        rows.add({"part": "larger", "task": task, "rows": n, "columns": 64, "block": 100_000}, found)
        print(task, n, found, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("exact", "larger"), action="append")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("estimators.tall", options.json)
    for name in options.only or ("exact", "larger"):
        {"exact": exact, "larger": larger}[name](rows)


if __name__ == "__main__":
    main()
