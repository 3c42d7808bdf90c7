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
from itertools import pairwise

import numpy as np
import torch
from scipy.linalg import solve_sylvester

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.kernels.gp_hm import collocate

STEPS = 2000
"""Of Adam, of a network."""
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
NARROW = np.geomspace(0.001, 1, 13).tolist()
"""Widths of a kernel without waves to try, by the length of the line."""
SLOW: tuple[Function, Function] = (lambda x: np.sin(20 * x), lambda x: -400 * np.sin(20 * x))
"""u and u''."""


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


def radial(f: Function, x: np.ndarray, u: Function) -> dict[str, float]:
    """A Gaussian kernel without waves, of the width that leaves the least residual."""
    start = time.process_time()
    found = min(
        (collocate(f, (x,), boundary=u, base="rbf", frequencies=([0.0],), lengthscale=l) for l in NARROW),
        key=lambda each: each.error,
    )
    error = relative(found.value.values, u(x))
    return {"error": error, "residual": found.error, "seconds": time.process_time() - start}


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
            if n <= 900:
                yield what | {"arm": "no waves, Gaussian"}, radial(f, x, u)
            start = time.process_time()
            z, d = chebyshev(n)
            v = u(z)
            v[1:-1] = np.linalg.solve(d[1:-1, 1:-1], f(z)[1:-1] - d[1:-1][:, [0, -1]] @ v[[0, -1]])
            yield what | {"arm": "Chebyshev"}, {"error": relative(v, u(z)), "seconds": time.process_time() - start}


def plane(_: int) -> Iterator[Found]:
    """u_xx + u_yy = f, u = sin kx sin ky."""
    for name, k, counts in (
        ("sin 20x sin 20y", 20, (60, 120)),
        ("sin 40x sin 40y", 40, (60, 120)),
        ("sin 100x sin 100y", 100, (200, 400)),
    ):

        def u(x: np.ndarray, y: np.ndarray, k: float = k) -> np.ndarray:
            return np.asarray(np.sin(k * x) * np.sin(k * y))

        def f(x: np.ndarray, y: np.ndarray, k: float = k) -> np.ndarray:
            return np.asarray(-2 * k * k * np.sin(k * x) * np.sin(k * y))

        for n in counts:
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


def react(u: np.ndarray) -> np.ndarray:
    """Allen and Cahn's u (u^2 - 1)."""
    return np.asarray(u * (u * u - 1))


def reacting(_: int) -> Iterator[Found]:
    """u'' + u (u^2 - 1) = f with u at both ends, by waves and by Chebyshev's polynomials."""
    for name, count in (("sin 20x", 200), ("sin 100x", 200), ("sin 100x", 400), ("sin 6x + 0.1 sin 100x", 400)):
        u, bend = SLOW if name == "sin 20x" else LINE[name][1:3]

        def f(x: np.ndarray, u: Function = u, bend: Function = bend) -> np.ndarray:
            return bend(x) + react(u(x))

        what = {"part": "reacting", "method": "gp-hm", "u": name, "n": count, "seed": 0}
        x = np.linspace(0, 2 * np.pi, count)
        for base in ("matern", "rbf"):
            start = time.process_time()
            found = collocate(f, (x,), boundary=u, reaction=react, base=base, tolerance=1e-8)
            yield (
                what | {"arm": f"waves, {'Matern 5/2' if base == 'matern' else 'Gaussian'}"},
                {
                    "error": relative(found.value.values, u(x)),
                    "residual": found.error,
                    "seconds": time.process_time() - start,
                },
            )
        start = time.process_time()
        z, d = chebyshev(count)
        v, inner = u(z) * (np.abs(z - np.pi) > np.pi - 1e-9), slice(1, -1)
        for _step in range(30):
            rest = d[inner] @ v + react(v[inner]) - f(z[inner])
            move = np.linalg.solve(d[inner, inner] + np.diag(3 * v[inner] ** 2 - 1), rest)
            v[inner] -= move
            if np.linalg.norm(move) <= 1e-12 * np.linalg.norm(v):
                break
        yield what | {"arm": "Chebyshev"}, {"error": relative(v, u(z)), "seconds": time.process_time() - start}


def networks(_: int) -> Iterator[Found]:
    """The same by networks, of 200 points."""
    x = np.linspace(0, 2 * np.pi, 200)
    for name in ("sin 20x", "sin 100x"):
        u, bend = SLOW if name == "sin 20x" else LINE[name][1:3]
        for arm in ("network", "network of waves"):
            found = network(x, u, lambda x, u=u, bend=bend: bend(x) + react(u(x)), waves=arm != "network")
            yield {"part": "reacting networks", "method": "gp-hm", "u": name, "n": 200, "arm": arm, "seed": 0}, found


def network(x: np.ndarray, u: Function, f: Function, *, waves: bool) -> dict[str, float]:
    """A network of three hidden layers of 64 tanh, trained on the equation at the points and u at the ends.

    With `waves` its inputs are sines and cosines of 64 frequencies, normal of a deviation of 50. The last iterate
    counts; the true u has no part in training.
    """
    torch.manual_seed(0)
    start = time.process_time()
    frequencies = torch.randn(64) * 50
    points = torch.tensor(x, dtype=torch.float32)[:, None].requires_grad_()
    wide = [128 if waves else 1, 64, 64, 64]
    layers: list[torch.nn.Module] = []
    for a, b in pairwise(wide):
        layers += [torch.nn.Linear(a, b), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(64, 1))
    source = torch.tensor(f(x), dtype=torch.float32)[:, None]
    ends = torch.tensor(u(x[[0, -1]]), dtype=torch.float32)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scale = float(source.square().mean())
    value = points
    for _ in range(STEPS):
        at = points * frequencies
        value = model(torch.cat([at.sin(), at.cos()], 1) if waves else points / torch.pi - 1)
        (first,) = torch.autograd.grad(value.sum(), points, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), points, create_graph=True)
        rest = second + value * (value**2 - 1) - source
        loss = rest[1:-1].square().mean() / scale + (value[[0, -1]] - ends).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = relative(value.detach().double().numpy()[:, 0], u(x))
    return {"error": error, "residual": float(loss.detach()) ** 0.5, "seconds": time.process_time() - start}


def reacting_plane(_: int) -> Iterator[Found]:
    """u_xx + u_yy + u (u^2 - 1) = f, u = sin kx sin ky."""
    for k, n in ((20, 60), (20, 120)):

        def u(x: np.ndarray, y: np.ndarray, k: float = k) -> np.ndarray:
            return np.asarray(np.sin(k * x) * np.sin(k * y))

        def f(x: np.ndarray, y: np.ndarray, k: float = k) -> np.ndarray:
            return np.asarray(-2 * k * k * u(x, y, k) + react(u(x, y, k)))

        x = np.linspace(0, 2 * np.pi, n)
        start = time.process_time()
        found = collocate(f, (x, x), boundary=u, reaction=react, tolerance=1e-8)
        what = {"part": "reacting plane", "method": "gp-hm", "u": f"sin {k}x sin {k}y", "n": n, "seed": 0}
        numbers = {"error": relative(found.value.values, u(x[:, None], x)), "residual": found.error}
        yield what | {"arm": "waves, Matern 5/2"}, numbers | {"seconds": time.process_time() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.collocation", options.json)
    parts = {
        "line": line,
        "plane": plane,
        "reacting": reacting,
        "reacting plane": reacting_plane,
        "reacting networks": networks,
    }
    for name in options.only or parts:
        for what, found in medians(parts[name](1)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
