"""Errors and counts of sketches, samples and transport: the papers' rules beside simpler ones. No seconds.

    pip install scikit-learn
    python -m benchmarks.sketching.errors

Digits are those of scikit-learn (1797 pictures of 8 x 8).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks.common.rows import Rows, add_option
from eckart.sketching.dense_sketch_regression import sketched_lstsq
from eckart.sketching.dpp_least_squares import dpp_design
from eckart.sketching.sinkhorn_newton_sparse import sinkhorn_newton
from eckart.sketching.sliced_wasserstein_cv import sliced_wasserstein
from eckart.sketching.spright import Spectrum, sparse_hadamard

Found = tuple[dict[str, Any], dict[str, Any]]
"""What was measured, and what came out."""


def regressions(draws: int) -> Iterator[Found]:
    """Errors of coordinates by sqrt(d) / (|r| |A^+|), and how often error bars of 95 % hold."""
    n, d, m = 2048, 32, 256
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((n, d))
    # Rows of the identity, twice: each coordinate hangs on two rows.
    coherent = np.concatenate([np.eye(d), np.eye(d), 1e-3 * rng.standard_normal((n - 2 * d, d))])
    for matrix, a in (("Gaussian", gaussian), ("coherent", coherent)):
        b = a @ rng.standard_normal(d) + rng.standard_normal(n)
        exact = np.linalg.lstsq(a, b, rcond=None)[0]
        unit = np.linalg.norm(b - a @ exact) * np.linalg.norm(np.linalg.pinv(a), 2) / d**0.5
        for kind in ("srht", "sparse-sign", "gaussian", "count"):
            found = [sketched_lstsq(a, b, size=m, sketch=kind, generator=seed) for seed in range(draws)]
            errors = np.array([each.value - exact for each in found])
            worst = np.abs(errors).max(1) / unit
            covered = np.mean([np.abs(e) < 1.96 * each.error for e, each in zip(errors, found, strict=True)])
            what = {"part": "regression", "method": "dense-sketch-regression", "matrix": matrix, "arm": kind}
            what |= {"rows": n, "columns": d, "size": m, "draws": draws}
            yield (
                what,
                {"median": float(np.median(worst)), "q95": float(np.quantile(worst, 0.95)), "covered": float(covered)},
            )


def designs(draws: int) -> Iterator[Found]:
    """Errors of fits of exp(sin 4x) in 10 Legendre polynomials, by that of the best fit."""
    x = np.random.default_rng(0).uniform(-1, 1, 2000)
    phi, y = np.polynomial.legendre.legvander(x, 9), np.exp(np.sin(4 * x))
    best = np.linalg.norm(y - phi @ np.linalg.lstsq(phi, y, rcond=None)[0])
    for count in (10, 20, 40):
        for arm in ("repeated-dpp", "volume", "iid"):
            ratios = []
            for seed in range(draws):
                design = dpp_design(phi, count, design=arm, generator=seed)
                ratios.append(np.linalg.norm(y - phi @ design.fit(y[design.index])) / best)
            what = {"part": "design", "method": "dpp-least-squares", "arm": arm, "count": count, "features": 10}
            rms = float(np.sqrt(np.mean(np.square(ratios))))
            yield what | {"draws": draws}, {"median": float(np.median(ratios)), "rms": rms}


def transports() -> Iterator[Found]:
    """Steps to marginals within 1e-9 of the mass, between two halves of 600 digits."""
    pictures = load_digits().data[:600]
    x, y = pictures[:300], pictures[300:]
    cost = np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0)
    cost /= cost.max()
    arms: dict[str, dict[str, Any]] = {
        "newton, annealed": {"method": "newton"},
        "newton": {"method": "newton", "anneal": False},
        "sns, annealed": {"method": "sns"},
        "sns": {"method": "sns", "anneal": False},
        "sinkhorn": {"method": "sinkhorn", "iterations": 500, "warm": 0},
    }
    for eta in (200, 1200):
        for arm, options in arms.items():
            found = sinkhorn_newton(cost, reg=1 / eta, **({"iterations": 100} | options))
            what = {"part": "transport", "method": "sinkhorn-newton-sparse", "arm": arm, "eta": eta, "points": 300}
            yield what, {"steps": found.iterations, "error": found.error, "converged": found.converged}


def larger_transports() -> Iterator[Found]:
    """The same for more digits, the second cloud's with noise: a square cost and a wide one; 100 steps at most."""
    pictures = load_digits().data
    for n, m in ((1600, 1600), (200, 1700)):
        rng = np.random.default_rng(0)
        x = pictures[rng.permutation(len(pictures))[:n]]
        y = pictures[rng.permutation(len(pictures))[:m]] + rng.normal(0, 0.5, (m, 64))
        cost = np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T, 0)
        cost /= cost.max()
        for eta in (200, 1200):
            for method in ("newton", "sns"):
                found = sinkhorn_newton(cost, reg=1 / eta, method=method, iterations=100)
                what = {"part": "larger transport", "method": "sinkhorn-newton-sparse", "arm": method, "eta": eta}
                result = {"steps": found.iterations, "error": found.error, "converged": found.converged}
                yield what | {"shape": f"{n} x {m}"}, result


def distances(draws: int) -> Iterator[Found]:
    """Mean squared errors of sliced distances between digits 3 and 8, by those of independent lines."""
    data = load_digits()
    three, eight = data.data[data.target == 3] / 16, data.data[data.target == 8] / 16
    yield from sliced("distance", three, eight, (10, 50), draws)
    yield from sliced("equal means", three[::2], three[1::2], (50, 200), draws)


def sliced(part: str, x: Any, y: Any, counts: tuple[int, ...], draws: int) -> Iterator[Found]:
    exact = float(sliced_wasserstein(x, y, projections=6400, control="both", generator=10**6).value)
    arms = {
        "independent lines": ("uniform", None),
        "lower control": ("uniform", "lower"),
        "upper control": ("uniform", "upper"),
        "orthogonal lines": ("orthogonal", None),
        "orthogonal, lower control": ("orthogonal", "lower"),
        "orthogonal, both controls": ("orthogonal", "both"),
    }
    for count in counts:
        plain = 0.0
        for arm, (lines, control) in arms.items():
            found = [
                sliced_wasserstein(x, y, projections=count, lines=lines, control=control, generator=seed).value
                for seed in range(draws)
            ]
            squared = float(np.mean(np.square(np.array(found) - exact)))
            plain = plain or squared
            what = {"part": part, "method": "sliced-wasserstein-cv", "arm": arm, "lines": count, "draws": draws}
            yield what, {"gain": plain / squared, "bias": float(np.mean(found)) / exact - 1}


def spectra(draws: int) -> Iterator[Found]:
    """Coefficients that are found of 24 on 16 bits, and the values asked for of 65,536, by the noise."""
    n, k = 16, 24
    for decibels, repetitions in ((None, 1), (20, 1), (10, 1), (2, 1), (2, 4), (2, 12)):
        whole, shares, calls = 0, [], 0
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            index = np.unique(rng.integers(0, 2, (k, n)).astype(np.uint8), axis=0)
            f = Spectrum(index, rng.choice([-1.0, 1.0], len(index)))
            deviation = 0.0 if decibels is None else (len(index) / 10 ** (decibels / 10)) ** 0.5

            def asked(bits: Any, f: Spectrum = f, s: float = deviation, rng: Any = rng) -> Any:
                return f.predict(bits) + s * rng.standard_normal(len(bits))

            found = sparse_hadamard(asked, n, k, repetitions=repetitions, noise=deviation, generator=seed)
            names = {row.tobytes() for row in found.value.index}
            true = {row.tobytes() for row in index}
            whole, calls = whole + (names == true), found.calls
            shares.append(len(names & true) / len(true))
        noise = "none" if decibels is None else f"{decibels} dB"
        what = {"part": "spectrum", "method": "spright", "noise": noise, "repetitions": repetitions, "draws": draws}
        yield what, {"exact": whole / draws, "share": float(np.mean(shares)), "calls": calls, "of all": calls / 2**n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("sketching.errors", options.json)
    parts: dict[str, Callable[[], Iterator[Found]]] = {
        "regression": lambda: regressions(options.draws),
        "design": lambda: designs(options.draws),
        "distance": lambda: distances(options.draws),
        "spectrum": lambda: spectra(max(1, options.draws // 5)),
        "transport": transports,
        "larger transport": larger_transports,
    }
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k not in ("part", "draws")}, found, flush=True)


if __name__ == "__main__":
    main()
