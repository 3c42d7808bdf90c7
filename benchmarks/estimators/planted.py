"""Solvers on planted problems: what the papers claim of them, beside plain forms of the published steps.

    pip install 'eckart[data]' pymanopt
    python -m benchmarks.estimators.planted [--part PART] [--speech FOLDER]

Errors are relative and medians over seeds, unless said. Seconds are of one thread. FOLDER holds mono files of read
speech in 16 kHz (WAV), as those of the tests of pocketsphinx; without it "transfer" leaves speech out.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from sklearn.linear_model import ARDRegression

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.draws import Found, middle, relative, timed
from benchmarks.estimators.waves import paths, spectra, transfer
from eckart.estimators.blind_gain import blind_gains
from eckart.estimators.kronecker_sbl import kronecker_bayes, posterior
from eckart.estimators.matrix_sensing import sense_matrix
from eckart.estimators.self_calibration_ls import self_calibration, unit_mean
from eckart.linalg.mode_products import mode_products

PYMANOPT = "pymanopt's conjugate gradients"


def on_manifold(a: Any, y: Any, rank: int, seed: int, *, symmetric: bool) -> list[float]:
    """Residuals by |y|, step by step, of pymanopt's conjugate gradients on matrices of fixed rank."""
    from pymanopt import Problem
    from pymanopt.function import numpy as function
    from pymanopt.manifolds import FixedRankEmbedded, PSDFixedRank
    from pymanopt.manifolds.fixed_rank import _FixedRankPoint
    from pymanopt.optimizers import ConjugateGradient

    n, size = a.shape[1], float(np.linalg.norm(y))
    manifold: Any = PSDFixedRank(n, rank) if symmetric else FixedRankEmbedded(n, n, rank)

    def misfit(x: Any) -> Any:
        return np.einsum("mij,ij->m", a, x) - y

    def whole(point: tuple[Any, ...]) -> Any:
        return point[0] @ point[0].T if symmetric else (point[0] * point[1]) @ point[2]

    def slope(point: tuple[Any, ...]) -> Any:
        inner = np.einsum("m,mij->ij", misfit(whole(point)), a) / size**2
        if symmetric:
            return (inner + inner.T) @ point[0]
        u, s, vt = point
        return inner @ vt.T * s, np.einsum("ik,ij,kj->k", u, inner, vt), (s[:, None] * u.T) @ inner

    @function(manifold)
    def cost(*point: Any) -> Any:
        return float(np.square(misfit(whole(point))).sum()) / size**2 / 2

    @function(manifold)
    def gradient(*point: Any) -> Any:
        return slope(point)

    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for _ in range(2))
    start = rng.standard_normal((n, rank)) / n**0.5 if symmetric else _FixedRankPoint(u, np.linspace(1, 0.5, rank), v.T)
    optimizer = ConjugateGradient(
        max_iterations=1000, min_gradient_norm=1e-14, min_step_size=1e-16, verbosity=0, log_verbosity=1
    )
    log = optimizer.run(Problem(manifold, cost, euclidean_gradient=gradient), initial_point=start).log
    return [float(np.sqrt(2 * each)) for each in log["iterations"]["cost"]]


def sensing(seeds: int) -> Iterator[Found]:
    """Steps to a residual of 1e-6, and errors after 100 and 1000 steps, by what a rank too high does to descent."""
    n, r, m = 20, 2, 400
    arms: dict[str, dict[str, Any]] = {
        "gd, symmetric": {"method": "gd", "symmetric": True},
        "gd, start 0.5": {"method": "gd", "start": 0.5},
        "gd, start 0.1": {"method": "gd", "start": 0.1},
        "rescaled, start 0.5": {"method": "rescaled", "start": 0.5},
        "rescaled, start 0.1": {"method": "rescaled", "start": 0.1},
        "preconditioned": {},
        "preconditioned, symmetric": {"symmetric": True},
    }
    if find_spec("pymanopt"):
        arms |= {PYMANOPT: {"symmetric": False}, f"{PYMANOPT}, symmetric": {"symmetric": True}}
    for kappa, rank in ((1.5, 4), (1.5, 2), (30.0, 4)):
        for arm, options in arms.items():
            found = []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                u = np.linalg.qr(rng.standard_normal((n, r)))[0]
                truth = (u * np.geomspace(1, 1 / kappa, r)) @ u.T
                a = rng.standard_normal((m, n, n)) / m**0.5
                y = np.einsum("mij,ij->m", a, truth)
                if arm.startswith(PYMANOPT):
                    history: Any = on_manifold(a, y, rank, seed, **options)
                    reached = [k for k, error in enumerate(history) if error <= 1e-6]
                    steps = reached[0] if reached else np.inf
                    history = history[: reached[0] + 1] if reached else history
                else:
                    solution = sense_matrix(a, y, rank, tolerance=1e-6, max_iter=1000, generator=seed, **options)
                    history, steps = solution.history, solution.iterations if solution.error <= 1e-6 else np.inf
                after = [history[min(k, len(history) - 1)] for k in (100, 1000)]
                found.append((steps, *after))
            steps, early, late = middle(found)
            what = {"part": "sensing", "method": "matrix-sensing", "arm": arm, "kappa": kappa, "rank": rank}
            what |= {"n": n, "true rank": r, "measurements": m, "seeds": seeds}
            told = f"{steps:.0f}" if np.isfinite(steps) else "not in 1000"
            yield what, {"steps": told, "after 100": early, "after 1000": late}


def gains(seeds: int) -> Iterator[Found]:
    """Errors of gains and signals, steps and seconds, by noise and the spread of the gains."""
    p, m, n = 8, 64, 32
    for rho, decibels in ((0.5, None), (0.5, 30), (0.5, 10), (0.95, 30)):
        found: dict[tuple[str, str], list[Any]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            a, x = rng.standard_normal((p, m, n)), rng.standard_normal(n)
            d, x = unit_mean(1 + rng.uniform(-rho, rho, m), x)
            y = d * (a @ x)
            if decibels is not None:
                y = y + rng.standard_normal(y.shape) * np.sqrt(np.square(y).mean()) * 10 ** (-decibels / 20)

            def general(a: Any = a, y: Any = y) -> tuple[Any, Any, int]:
                first = np.concatenate([np.ones(y.shape[1]), np.einsum("pm,pmn->n", y, a) / y.size])
                count = y.shape[1]
                best = least_squares(lambda z: (z[:count] * (a @ z[count:]) - y).ravel(), first)
                return *unit_mean(best.x[:count], best.x[count:]), best.nfev

            def of(solution: Any) -> tuple[Any, Any, int]:
                return *solution.value, solution.iterations

            calls: dict[tuple[str, str], Callable[[], tuple[Any, Any, int]]] = {
                ("self-calibration-ls", "linear least squares"): lambda a=a, y=y: of(self_calibration(a, y)),
                ("self-calibration-ls", "spectral"): lambda a=a, y=y: of(self_calibration(a, y, method="spectral")),
                ("blind-gain", "projected gradient"): lambda a=a, y=y: of(blind_gains(a, y, method="pgd")),
                ("blind-gain", "alternating, from ones"): lambda a=a, y=y: of(blind_gains(a, y, start="ones")),
                ("blind-gain", "alternating"): lambda a=a, y=y: of(blind_gains(a, y)),
                ("blind-gain", "scipy least_squares"): general,
            }
            for arm, call in calls.items():
                (gain, signal, steps), seconds = timed(call)
                found.setdefault(arm, []).append((relative(gain, d), relative(signal, x), steps, seconds))
        for (method, arm), values in found.items():
            gain, signal, steps, seconds = middle(values)
            noise = "none" if decibels is None else f"{decibels} dB"
            what = {"part": "gains", "method": method, "arm": arm, "rho": rho, "noise": noise, "seeds": len(values)}
            what |= {"p": p, "m": m, "n": n}
            yield what, {"gains": gain, "signal": signal, "steps": steps, "seconds": seconds}


def phases(seeds: int) -> Iterator[Found]:
    """How often gains are found without noise (1e-3), by measurements for each unknown."""
    m, n, rho = 64, 32, 0.5
    for p in (2, 3, 4, 6):
        hits = {"linear least squares": 0, "projected gradient": 0, "alternating": 0}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            a, x = rng.standard_normal((p, m, n)), rng.standard_normal(n)
            d, x = unit_mean(1 + rng.uniform(-rho, rho, m), x)
            y = d * (a @ x)
            solved = {
                "linear least squares": self_calibration(a, y),
                "projected gradient": blind_gains(a, y, method="pgd", max_iter=2000),
                "alternating": blind_gains(a, y, start="ones", max_iter=300),
            }
            for arm, solution in solved.items():
                hits[arm] += relative(solution.value.gains, d) < 1e-3
        for arm, count in hits.items():
            method = "self-calibration-ls" if arm.startswith("linear") else "blind-gain"
            what = {"part": "phases", "method": method, "arm": arm, "ratio": p * m / (m + n), "seeds": seeds}
            yield what | {"m": m, "n": n}, {"found": count / seeds}


def dense_sbl(h: Any, y: Any, noise: float, steps: int) -> Any:
    """Sparse Bayesian learning with a variance for each entry, by the whole dictionary: EM with the noise known."""
    g = np.ones(h.shape[1])
    for _ in range(steps):
        scaled = g[:, None] * h.T
        inverse = np.linalg.inv(h @ scaled + noise * np.eye(len(y)))
        mean = scaled @ (inverse @ y)
        g = g - np.einsum("ij,ji->i", scaled @ inverse, h * g) + np.square(mean)
    return mean


def published_step(factors: Any, y: Any, scales: Any, noise: float) -> Any:
    """The E step by the dense covariance, as the published program forms it."""
    h, g = np.ones((1, 1)), np.ones(1)
    for a, s in zip(factors, scales, strict=True):
        h, g = np.kron(h, a), np.kron(g, s)
    covariance = np.linalg.inv(h.T @ h / noise + np.diag(1 / g))
    return covariance @ (h.T @ y.ravel()) / noise, np.diag(covariance)


def kronecker(seeds: int) -> Iterator[Found]:
    """Squared errors by that of the truth, steps and seconds."""
    shape, side, k = (10, 12, 15), 15, 3
    small = {"part": "kronecker", "method": "kronecker-sbl", "dictionary": "10 x 12 x 15 of 15^3"}
    for decibels in (10, 20, 30):
        found: dict[str, list[Any]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            factors = [rng.standard_normal((m, side)) for m in shape]
            x = np.zeros((side,) * 3)
            x[np.ix_(*[rng.choice(side, k, replace=False) for _ in range(3)])] = rng.standard_normal((k,) * 3)
            clean = mode_products(x, factors)
            y = clean + rng.standard_normal(shape) * np.sqrt(np.square(clean).mean()) * 10 ** (-decibels / 20)
            for arm, step in (("svd", "svd"), ("am", "am")):
                solution, seconds = timed(lambda f=factors, y=y, s=step: kronecker_bayes(f, y, m_step=s))
                error = relative(solution.value.mean, x) ** 2
                found.setdefault(arm, []).append((error, solution.iterations, seconds))
        for arm, values in found.items():
            error, steps, seconds = middle(values)
            yield (
                small | {"arm": arm, "noise": f"{decibels} dB", "seeds": seeds},
                {"nmse": error, "steps": steps, "seconds": seconds},
            )
    # Peers that need the Kronecker product itself: a dictionary that they can hold.
    tiny = {"part": "kronecker", "method": "kronecker-sbl", "dictionary": "6 x 7 x 7 of 8^3", "noise": "20 dB"}
    found = {}
    for seed in range(min(seeds, 5)):
        rng = np.random.default_rng(seed)
        factors = [rng.standard_normal((m, 8)) for m in (6, 7, 7)]
        x = np.zeros((8, 8, 8))
        x[np.ix_(*[rng.choice(8, 2, replace=False) for _ in range(3)])] = rng.standard_normal((2, 2, 2))
        clean = mode_products(x, factors)
        noise = float(np.square(clean).mean()) / 100
        y = clean + noise**0.5 * rng.standard_normal(clean.shape)
        h = np.kron(np.kron(factors[0], factors[1]), factors[2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls: dict[str, Callable[[], Any]] = {
                "svd": lambda f=factors, y=y: kronecker_bayes(f, y).value.mean.ravel(),
                "am": lambda f=factors, y=y: kronecker_bayes(f, y, m_step="am").value.mean.ravel(),
                "SBL without structure, 50 steps": lambda h=h, y=y, s=noise: dense_sbl(h, y.ravel(), s, 50),
                "scikit-learn ARDRegression": lambda h=h, y=y: (
                    ARDRegression(fit_intercept=False, max_iter=50).fit(h, y.ravel()).coef_
                ),
            }
            for arm, call in calls.items():
                mean, seconds = timed(call)
                found.setdefault(arm, []).append((relative(mean, x.ravel()) ** 2, seconds))
    for arm, values in found.items():
        error, seconds = middle(values)
        yield tiny | {"arm": arm, "seeds": len(values)}, {"nmse": error, "seconds": seconds}


def large(seeds: int) -> Iterator[Found]:
    """One step as published and by mode products; and 64^3 unknowns, complex."""
    rng = np.random.default_rng(0)
    for shape, side in (((7, 9, 11), 11), ((9, 11, 13), 13), ((10, 12, 15), 15)):
        factors, y = [rng.standard_normal((m, side)) for m in shape], rng.standard_normal(shape)
        scales = [rng.uniform(0.5, 1.5, side) for _ in range(3)]
        (mean, variance), published = timed(lambda f=factors, y=y, s=scales: published_step(f, y, s, 0.1))
        ours, _ = timed(lambda f=factors, y=y, s=scales: posterior(f, y, s, 0.1))
        hundred = timed(lambda f=factors, y=y, s=scales: [posterior(f, y, s, 0.1) for _ in range(100)])[1]
        prior = np.kron(np.kron(scales[0], scales[1]), scales[2])
        off = max(relative(ours.mean.ravel(), mean), relative(prior * ours.shrink.ravel(), variance))
        dictionary = f"{' x '.join(map(str, shape))} of {side}^3, one step"
        what = {"part": "large", "method": "kronecker-sbl", "dictionary": dictionary}
        ratio = published / hundred * 100
        yield what, {"seconds": hundred / 100, "published": published, "ratio": ratio, "difference": off}

    def white(*shape: int) -> Any:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 2**0.5

    factors, x = [white(40, 64) for _ in range(3)], np.zeros((64,) * 3, complex)
    x[np.ix_(*[rng.choice(64, 4, replace=False) for _ in range(3)])] = white(4, 4, 4)
    clean = mode_products(x, factors)
    y = clean + 0.1 * np.sqrt(np.square(np.abs(clean)).mean()) * white(*clean.shape)
    solution, seconds = timed(lambda: kronecker_bayes(factors, y))
    what = {"part": "large", "method": "kronecker-sbl", "dictionary": "40^3 of 64^3, complex, 20 dB"}
    error = relative(solution.value.mean, x) ** 2
    yield what, {"nmse": error, "steps": solution.iterations, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--seeds", type=int, help="instead of each part's own")
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="of speech, for transfer")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("estimators.planted", options.json)
    parts: dict[str, tuple[int, Callable[[int], Iterator[Found]]]] = {
        "sensing": (3, sensing),
        "gains": (10, gains),
        "phases": (20, phases),
        "kronecker": (5, kronecker),
        "large": (1, large),
        "paths": (10, paths),
        "spectra": (10, spectra),
        "transfer": (10, lambda seeds: transfer(seeds, options.speech)),
    }
    for name in options.part or parts:
        seeds, part = parts[name]
        for what, found in part(options.seeds or seeds):
            rows.add(what, found)
            print({k: v for k, v in what.items() if k != "part"}, found, flush=True)


if __name__ == "__main__":
    main()
