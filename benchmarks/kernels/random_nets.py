"""Networks with drawn weights: errors over the size of the box, what a bound on coefficients costs, and two tables.

    OMP_NUM_THREADS=1 python -m benchmarks.kernels.random_nets --json benchmarks/results/kernels.jsonl

Waves are sin(k x) at 400 even points of [-1, 1], errors rms at 400 others. Diabetes and digits (as numbers) are
scikit-learn's.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes, load_digits
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.kernel_ridge import left_out
from benchmarks.common.rows import Rows, add_option
from eckart.kernels.bandlimited_random_net import SCALES, RandomNet, bandlimit_error
from eckart.kernels.rbf import RBF

Found = tuple[dict[str, Any], dict[str, Any]]


def waves() -> Iterator[Found]:
    """Least squares and validated ridge at fixed scales, and the scale that validation takes; the median of 3 draws."""
    x, new = np.linspace(-1, 1, 400)[:, None], np.linspace(-0.998, 0.997, 400)[:, None]
    for k in (5, 20, 80):
        y, truth = np.sin(k * x[:, 0]), np.sin(k * new[:, 0])
        for units in (100, 400):

            def errors(units: int = units, y: Any = y, truth: Any = truth, **options: Any) -> Any:
                nets = [RandomNet(units, random_state=seed, **options).fit(x, y) for seed in range(3)]
                off = [float(np.sqrt(np.square(net.predict(new) - truth).mean())) for net in nets]
                return float(np.median(off)), float(np.median([net.coef_norm_ for net in nets])), nets[0].scale_

            what = {"part": "waves", "method": "bandlimited-random-net", "k": k, "units": units, "points": 400}
            for scale in (1.0, 4.0, 16.0, 64.0):
                error, norm, _ = errors(scale=scale, ridge=0.0)
                yield {**what, "arm": f"R = {scale:.0f}"}, {"error": error, "norm": norm}
            best = min(errors(scale=scale)[0] for scale in SCALES)
            error, norm, scale = errors()
            yield {**what, "arm": "validated"}, {"error": error, "norm": norm, "scale": float(scale), "oracle": best}


def bounds() -> Iterator[Found]:
    """The least error in a box, by the norm of the coefficients."""
    x = np.linspace(-1, 1, 400)[:, None]
    norms = (1.0, 1e2, 1e4, 1e6, 1e8, 1e10)
    for k in (5, 10):
        for scale in (1.0, 4.0, 16.0):
            found = bandlimit_error(x, np.sin(k * x[:, 0]), scale, norms, n_units=1000, generator=0)
            what = {"part": "bounds", "method": "bandlimited-random-net", "k": k, "scale": scale}
            for norm, error in zip(norms, found, strict=True):
                yield {**what, "norm": norm}, {"error": float(error)}


def tables() -> Iterator[Found]:
    """Errors by the target's deviation, of three halves."""
    digits, diabetes = load_digits(), load_diabetes()
    sets = {"diabetes": (diabetes.data, diabetes.target), "digits": (digits.data[:1000], digits.target[:1000] * 1.0)}
    for name, (table, target) in sets.items():
        errors: dict[str, list[float]] = {}
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(table))
            train, test = np.array_split(order, 2)
            scaler = StandardScaler().fit(table[train])
            x, new = scaler.transform(table[train]), scaler.transform(table[test])
            y, truth = target[train], target[test]
            far = float(np.median(np.linalg.norm(x[:200, None] - x[None, :200], axis=2)))
            arms: dict[str, Callable[[], Any]] = {}
            for r in (0.25, 1.0, 4.0):
                arms[f"R = {r}, ridge validated"] = lambda r=r, seed=seed: RandomNet(scale=r, random_state=seed)
            arms["R and ridge validated"] = lambda seed=seed: RandomNet(random_state=seed)
            arms["MLPRegressor of 200 units"] = lambda seed=seed: MLPRegressor(
                hidden_layer_sizes=(200,), random_state=seed, max_iter=200
            )
            for arm, made in arms.items():
                said = made().fit(x, (y - y.mean()) / y.std()).predict(new) * y.std() + y.mean()
                errors.setdefault(arm, []).append(float(np.sqrt(np.square(said - truth).mean()) / truth.std()))
            gamma = min(
                (1 / (2 * (far * c) ** 2) for c in (0.5, 1.0, 2.0)),
                key=lambda g: (
                    -make_pipeline(
                        RBFSampler(gamma=g, n_components=200, random_state=seed), RidgeCV(np.logspace(-6, 3, 10))
                    )
                    .fit(x, y)[-1]
                    .best_score_
                ),
            )
            sampler = make_pipeline(
                RBFSampler(gamma=gamma, n_components=200, random_state=seed), RidgeCV(np.logspace(-6, 3, 10))
            )
            said = sampler.fit(x, y).predict(new)
            errors.setdefault("RBFSampler of 200, width by the error left out", []).append(
                float(np.sqrt(np.square(said - truth).mean()) / truth.std())
            )
            best = min(
                ((left_out(RBF(far * c)(x), (y - y.mean())[:, None]), c) for c in (0.5, 1.0, 2.0, 4.0)),
                key=lambda each: each[0][0],
            )
            said = RBF(far * best[1])(new, x) @ best[0][1][:, 0] + y.mean()
            errors.setdefault("Gaussian kernel, all of it, width by the error left out", []).append(
                float(np.sqrt(np.square(said - truth).mean()) / truth.std())
            )
        for arm, found in errors.items():
            what = {"part": "tables", "method": "bandlimited-random-net", "data": name, "arm": arm, "halves": 3}
            yield what, {"error": float(np.mean(found)), "deviation": float(np.std(found))}


PARTS: dict[str, Callable[[], Iterator[Found]]] = {"waves": waves, "bounds": bounds, "tables": tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="all parts where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.random_nets", options.json)
    for part in options.only or PARTS:
        for what, found in PARTS[part]():
            print(what, found, flush=True)
            rows.add(what, found)


if __name__ == "__main__":
    main()
