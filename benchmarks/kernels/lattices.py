"""Kernels on lattices and digital nets beside qmcpy: seconds, means of the borehole function, and its values.

    pip install --no-deps qmcpy qmctoolscl fastgps
    python -m benchmarks.kernels.lattices

Seconds are the least of three, of one thread on a shared machine, ours and the peer's in turn.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart import linalg
from eckart.kernels import DigitalNet, Lattice
from eckart.kernels.fast_qmc_kernels import BernoulliKernel, WalshKernel, fit_on_lattice

BOREHOLE = np.array(
    [
        [0.05, 0.15],
        [100, 50000],
        [63070, 115600],
        [990, 1110],
        [63.1, 116],
        [700, 820],
        [1120, 1680],
        [9855, 12045],
    ]
)
"""Sides of radius of the hole and of influence, upper transmissivity and head, the lower ones, length, conductivity."""

METHODS = {"lattice": "fast-qmc-kernels", "net": "fast-qmc-kernels-digital"}


def borehole(x: np.ndarray) -> np.ndarray:
    """Flow of water through a borehole, m^3 a year."""
    rw, r, tu, hu, tl, hl, length, kw = x.T
    log = np.log(r / rw)
    return 2 * np.pi * tu * (hu - hl) / (log * (1 + 2 * length * tu / (log * rw**2 * kw) + tu / tl))


def least(*functions: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Seconds and result of each, in turn, three times."""
    found: list[tuple[float, Any]] = [(np.inf, None)] * len(functions)
    for _ in range(3):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            made = function()
            found[i] = (min(found[i][0], time.perf_counter() - start), made)
    return found


def solve(_: int) -> Iterator[Found]:
    """Seconds of the Gram matrix and of a solve with it, of n points in 6 dimensions."""
    import qmcpy

    weights, shift = 0.5 / np.arange(1, 7) ** 2, 1e-3
    for bits in (10, 12, 14, 16, 18, 20):
        n = 2**bits
        y = np.random.default_rng(bits).standard_normal(n)
        column_of_y = torch.from_numpy(y)[:, None]
        turned = np.zeros(1, int)
        for _ in range(bits):
            turned = np.concatenate([2 * turned, 2 * turned + 1])
        lattice, net = Lattice(n, 6), DigitalNet(n, 6)
        at, digits = lattice.array().numpy()[turned], (net.array().numpy() * 2.0**52).astype(np.uint64)
        peers = {
            "lattice": qmcpy.KernelShiftInvar(6, alpha=2, lengthscales=weights),
            "net": qmcpy.KernelDigShiftInvar(6, t=52, alpha=2, lengthscales=weights),
        }

        def by_peer(kind: str, column: np.ndarray, n: int = n, y: np.ndarray = y) -> np.ndarray:
            there, back = (qmcpy.fftbr, qmcpy.ifftbr) if kind == "lattice" else (qmcpy.fwht, qmcpy.fwht)
            return np.real(back(there(y) / (np.sqrt(n) * there(column) + shift)))

        for kind, kernel, points, inputs, order in (
            ("lattice", BernoulliKernel(2, weights), lattice, at, turned),
            ("net", WalshKernel(2, weights), net, digits, np.arange(n)),
        ):
            with torch.no_grad():
                (ours, gram), (theirs, column) = least(
                    lambda k=kernel, p=points: k.gram(p), lambda q=peers[kind], x=inputs: q(x, x[0])
                )
                checked, spectral, peer = least(
                    lambda g=gram, y=y: linalg.solve(g, y, shift=shift),
                    lambda g=gram, y=column_of_y: linalg.eigh(g).function(lambda values: 1 / (values + shift), y),
                    lambda kind=kind, c=column, y=y[order]: by_peer(kind, c, y=y),
                )
            apart = np.abs(checked[1][order] - peer[1]).max() / np.abs(peer[1]).max()
            yield (
                {"part": "solve", "method": METHODS[kind], "points": kind, "n": n, "dimensions": 6, "seed": 0},
                {
                    "gram": ours,
                    "solve": checked[0],
                    "by eigenvalues": spectral[0],
                    "qmcpy gram": theirs,
                    "qmcpy solve": peer[0],
                    "times": (theirs + peer[0]) / (ours + spectral[0]),
                    "checked times": (theirs + peer[0]) / (ours + checked[0]),
                    "apart": float(apart),
                    "condition": float(linalg.eigh(gram).values.max()) / shift,
                },
            )


def means(seeds: int) -> Iterator[Found]:
    """Points asked for, and the error of the borehole's mean, where its standard deviation is below a tolerance."""
    import qmcpy

    truth = fit_on_lattice(borehole, 8, tolerance=1e-9, folded=True, bounds=BOREHOLE, limit=2**17, weights=0.1)
    exact = truth.value.mean
    for seed in range(seeds):
        for tolerance in (0.1, 0.01):
            what = {"part": "means", "method": "fast-qmc-kernels-gp", "tolerance": tolerance, "seed": seed}
            for arm, options in (
                ("lattice", {"folded": True}),
                ("lattice, not folded", {}),
                ("net", {"points": "net"}),
            ):
                start = time.process_time()
                found = fit_on_lattice(
                    borehole, 8, tolerance=tolerance / 2.58, bounds=BOREHOLE, generator=seed, **options
                )
                seconds = time.process_time() - start
                error = abs(found.value.mean - exact)
                yield what | {"arm": arm}, {"calls": found.calls, "error": error, "seconds": seconds}
            for arm, points, rule in (
                ("qmcpy's CubBayesLatticeG", qmcpy.Lattice, qmcpy.CubBayesLatticeG),
                ("qmcpy's CubBayesNetG", qmcpy.DigitalNetB2, qmcpy.CubBayesNetG),
            ):
                measure = qmcpy.Uniform(points(8, seed=seed), BOREHOLE[:, 0], BOREHOLE[:, 1])
                start = time.process_time()
                value, data = rule(qmcpy.CustomFun(measure, borehole), abs_tol=tolerance, n_limit=2**16).integrate()
                seconds = time.process_time() - start
                error = abs(float(np.squeeze(value)) - exact)
                yield what | {"arm": arm}, {"calls": int(data.n_total), "error": error, "seconds": seconds}


def values(seeds: int) -> Iterator[Found]:
    """Root mean square error of 2000 values of the borehole by their standard deviation, and how often bars hold."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x = rng.uniform(BOREHOLE[:, 0], BOREHOLE[:, 1], (2000, 8))
        y = borehole(x)
        for n in (256, 1024, 4096):
            what = {"part": "values", "method": "fast-qmc-kernels-gp", "n": n, "seed": seed}
            for arm, options in (("lattice", {"folded": True}), ("net", {"points": "net"})):
                start = time.process_time()
                fitted = fit_on_lattice(
                    borehole, 8, tolerance=1e-12, bounds=BOREHOLE, start=n, limit=n, generator=seed, **options
                ).value
                seconds = time.process_time() - start
                near, sd = fitted.predict(x, return_std=True)
                yield (
                    what | {"arm": arm},
                    {
                        "error": float(np.sqrt(np.square(near - y).mean()) / y.std()),
                        "covered": float((np.abs(near - y) < 1.96 * sd).mean()),
                        "seconds": seconds,
                    },
                )
            if n == 256:
                u = DigitalNet(n, 8, rng.random(8)).array().numpy()
                start = time.process_time()
                peer = GaussianProcessRegressor(RBF(np.ones(8)), alpha=1e-8, normalize_y=True)
                peer.fit(u, borehole(BOREHOLE[:, 0] + u * np.ptp(BOREHOLE, axis=1)))
                seconds = time.process_time() - start
                near, sd = peer.predict((x - BOREHOLE[:, 0]) / np.ptp(BOREHOLE, axis=1), return_std=True)
                yield (
                    what | {"arm": "scikit-learn's process, Gaussian kernel, on the net"},
                    {
                        "error": float(np.sqrt(np.square(near - y).mean()) / y.std()),
                        "covered": float((np.abs(near - y) < 1.96 * sd).mean()),
                        "seconds": seconds,
                    },
                )


def values_by_fastgps(seeds: int) -> Iterator[Found]:
    """The same values by fastgps, its hyperparameters learned by its own `fit`; on lattices folded, as ours."""
    import fastgps
    import qmcpy

    low, side = BOREHOLE[:, 0], np.ptp(BOREHOLE, axis=1)
    arms: dict[str, Any] = {
        "fastgps, lattice": (fastgps.FastGPLattice, qmcpy.KernelShiftInvar, qmcpy.Lattice, True),
        "fastgps, net": (fastgps.FastGPDigitalNetB2, qmcpy.KernelDigShiftInvar, qmcpy.DigitalNetB2, False),
    }
    torch.set_default_dtype(torch.float64)
    for seed in range(seeds):
        x = np.random.default_rng(seed).uniform(BOREHOLE[:, 0], BOREHOLE[:, 1], (2000, 8))
        y = borehole(x)
        for n in (256, 1024, 4096):
            for arm, (process, kernel, points, folded) in arms.items():
                start = time.process_time()
                made = process(kernel(8, torchify=True), seqs=points(dimension=8, seed=seed))
                u = made.get_x_next(n).numpy()
                z = borehole(low + (1 - np.abs(2 * u - 1) if folded else u) * side)
                mean, spread = z.mean(), z.std()
                made.add_y_next(torch.from_numpy((z - mean) / spread))
                made.fit(verbose=0)
                seconds = time.process_time() - start
                # A folded point has two places in the cube, of which one is asked.
                at = (x - low) / side / (2 if folded else 1)
                near, _, _, below, above = made.post_ci(torch.from_numpy(at), confidence=0.95)
                low_bar, high_bar = (mean + spread * each.detach().numpy() for each in (below, above))
                off = mean + spread * near.detach().numpy() - y
                yield (
                    {"part": "values", "method": "fast-qmc-kernels-gp", "n": n, "seed": seed, "arm": arm},
                    {
                        "error": float(np.sqrt(np.square(off).mean()) / y.std()),
                        "covered": float(((low_bar < y) & (y < high_bar)).mean()),
                        "seconds": seconds,
                    },
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("kernels.lattices", options.json)
    parts = {"solve": solve, "means": means, "values": values, "fastgps": values_by_fastgps}
    for name in options.only or parts:
        for what, found in medians(parts[name](options.seeds)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
