"""Poisson's equation with waves beside Chebyshev's polynomials, at the same number of points.

    python -m benchmarks.kernels.collocation

Solutions are those of the paper's problems on [0, 2 pi], and one beyond them; seconds are of the processor, of all
lengthscales that were tried. Chebyshev's matrices are dense, of the points cos(pi j / n).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from scipy.linalg import solve_sylvester

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.kernels.gp_hm import collocate

Function = Callable[[np.ndarray], np.ndarray]
LINE: dict[str, tuple[float, Function, Function, tuple[int, ...]]] = {
    "sin 100x": (100, lambda x: np.sin(100 * x), lambda x: -1e4 * np.sin(100 * x), (200, 400)),
    "sin 6x + 0.1 sin 100x": (
        100,
        lambda x: np.sin(6 * x) + 0.1 * np.sin(100 * x),
        lambda x: -36 * np.sin(6 * x) - 1e3 * np.sin(100 * x),
        (200, 400),
    ),
    "x sin 200x": (
        200,
        lambda x: x * np.sin(200 * x),
        lambda x: 400 * np.cos(200 * x) - 4e4 * x * np.sin(200 * x),
        (400, 900),
    ),
    "sin 500x": (500, lambda x: np.sin(500 * x), lambda x: -25e4 * np.sin(500 * x), (400, 900, 1800)),
}
"""Waves on the line, u, u'', and numbers of points."""


def chebyshev(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n points on [0, 2 pi] and the matrix of the second derivative by them."""
    theta = np.pi * np.arange(n) / (n - 1)
    x = np.cos(theta)
    weight = np.ones(n)
    weight[[0, -1]] = 2
    weight *= (-1.0) ** np.arange(n)
    half = theta / 2
    # x_i - x_j without its cancellation.
    apart = 2 * np.sin(half[:, None] + half) * np.sin(half[None, :] - half[:, None]) + np.eye(n)
    first = np.outer(weight, 1 / weight) / apart
    first -= np.diag(first.sum(1))
    return np.pi * (1 + x), first @ first / np.pi**2


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def line(_: int) -> Iterator[Found]:
    """u'' = f with u at both ends."""
    for name, (waves, u, f, counts) in LINE.items():
        for n in counts:
            what = {
                "part": "line",
                "method": "gp-hm",
                "u": name,
                "n": n,
                "points by wave": round(n / waves, 2),
                "seed": 0,
            }
            x = np.linspace(0, 2 * np.pi, n)
            for base in ("matern", "rbf"):
                if n > 900:
                    continue
                start = time.process_time()
                found = collocate(f, (x,), boundary=u, base=base, tolerance=1e-8)
                seconds = time.process_time() - start
                yield (
                    what | {"arm": f"waves, {'Matern 5/2' if base == 'matern' else 'Gaussian'}"},
                    {"error": relative(found.value.values, u(x)), "residual": found.error, "seconds": seconds},
                )
            start = time.process_time()
            z, d = chebyshev(n)
            v = u(z)
            v[1:-1] = np.linalg.solve(d[1:-1, 1:-1], f(z)[1:-1] - d[1:-1][:, [0, -1]] @ v[[0, -1]])
            yield what | {"arm": "Chebyshev"}, {"error": relative(v, u(z)), "seconds": time.process_time() - start}


def plane(_: int) -> Iterator[Found]:
    """u_xx + u_yy = f, u = sin kx sin ky."""
    for name, k in {"sin 20x sin 20y": 20, "sin 40x sin 40y": 40}.items():

        def u(x: np.ndarray, y: np.ndarray, k: float = k) -> np.ndarray:
            return np.asarray(np.sin(k * x) * np.sin(k * y))

        def f(x: np.ndarray, y: np.ndarray, k: float = k) -> np.ndarray:
            return np.asarray(-2 * k * k * np.sin(k * x) * np.sin(k * y))

        for n in (60, 120):
            what = {"part": "plane", "method": "gp-hm", "u": name, "n": n, "points by wave": round(n / k, 2), "seed": 0}
            x = np.linspace(0, 2 * np.pi, n)
            start = time.process_time()
            found = collocate(f, (x, x), boundary=u, tolerance=1e-8)
            yield (
                what | {"arm": "waves, Matern 5/2"},
                {
                    "error": relative(found.value.values, u(x[:, None], x)),
                    "residual": found.error,
                    "seconds": time.process_time() - start,
                },
            )
            start = time.process_time()
            z, d = chebyshev(n)
            v, inner = u(z[:, None], z), slice(1, -1)
            right = f(z[:, None], z)[inner, inner] - d[inner][:, [0, -1]] @ v[[0, -1], inner]
            right -= v[inner][:, [0, -1]] @ d[inner][:, [0, -1]].T
            v[inner, inner] = solve_sylvester(d[inner, inner], d[inner, inner].T, right)
            error = relative(v, u(z[:, None], z))
            yield what | {"arm": "Chebyshev"}, {"error": error, "seconds": time.process_time() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.collocation", options.json)
    parts = {"line": line, "plane": plane}
    for name in options.only or parts:
        for what, found in medians(parts[name](1)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
