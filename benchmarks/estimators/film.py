"""The background of a film, whole and with frames that were tampered with: robust decompositions beside others.

    apt-get download opencv-doc && dpkg -x opencv-doc_*.deb ROOT     # its vtest.avi: 795 frames of 576 x 768
    pip install imageio imageio-ffmpeg pyrpca rpca                   # to read it; and peers, left out if not there
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.film --film ROOT/usr/share/doc/opencv-doc/examples/data/vtest.avi

Frames are averaged over blocks of 8 x 8 pixels and every third is kept. Three squares whose place is known move over
all frames. A background is held against the median of the whole film, which sees three times the frames; and under the
squares against the film before they were put in, where that was background. Frames that were tampered with are left
out of both. Processor seconds, arms one after the other.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.rows import Rows, add_option
from eckart.estimators.godec import go_decomposition
from eckart.estimators.rpca_ialm import principal_component_pursuit
from eckart.estimators.rsvddpd import robust_svd

TAMPERED = 0.02
"""Of the frames that are black, and as many that are saturated."""
STEPS = 60
"""Of the decomposition with a constant step, which has not ended then."""
Arm = Callable[[np.ndarray], tuple[np.ndarray, int | None]]
"""Frames (frames, pixels) to their backgrounds, and how many steps were taken."""


def frames(film: Path, block: int) -> np.ndarray:
    """(frames, rows, columns), 0 to 255."""
    import imageio.v3 as iio

    found = []
    for frame in iio.imiter(film):
        grey = frame @ np.array([0.299, 0.587, 0.114])
        rows, columns = grey.shape[0] // block, grey.shape[1] // block
        cut = grey[: rows * block, : columns * block]
        found.append(cut.reshape(rows, block, columns, block).mean((1, 3)))
    return np.array(found)


def squares(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where they are, and how grey, in each frame."""
    count, rows, columns = shape
    where, grey = np.zeros(shape, bool), np.zeros(shape)
    size = rows // 8
    for value in (20.0, 128.0, 235.0):
        start, speed = rng.uniform(0, 1, 2), rng.uniform(0.3, 1.2, 2)
        for t in range(count):
            # A path back and forth, of constant speed.
            turn = 1 - np.abs(1 - (start + speed * t / 60) % 2)
            top, left = (turn * [rows - size, columns - size]).astype(int)
            place = t, slice(top, top + size), slice(left, left + size)
            where[place], grey[place] = True, value
    return where, grey


def warm(x: np.ndarray) -> tuple[np.ndarray, int]:
    found = principal_component_pursuit(x, generator=0)
    return found.value[0].dense(), found.iterations


def power_divergence(alpha: float) -> Arm:
    def fit(x: np.ndarray) -> tuple[np.ndarray, int]:
        found = robust_svd(x, 1, alpha, tolerance=1e-5)
        return found.value[0].dense(), found.iterations

    return fit


def go(x: np.ndarray) -> tuple[np.ndarray, int]:
    found = go_decomposition(x, 1, 0.1, tolerance=1e-5, generator=0)
    return found.value[0].dense(), found.iterations


def constant_step(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Alternating directions with mu = size / (4 |X|_1) throughout, and the whole SVD in each step."""
    mu, penalty = x.size / (4 * np.abs(x).sum()), 1 / np.sqrt(max(x.shape))
    sparse, multiplier = np.zeros_like(x), np.zeros_like(x)
    steps = 0
    while steps < STEPS:
        steps += 1
        left, values, right = np.linalg.svd(x - sparse + multiplier / mu, full_matrices=False)
        low = (left * np.maximum(values - 1 / mu, 0)) @ right
        rest = x - low + multiplier / mu
        sparse = rest - np.clip(rest, -penalty / mu, penalty / mu)
        gap = x - low - sparse
        multiplier += mu * gap
        if np.linalg.norm(gap) <= 1e-7 * np.linalg.norm(x):
            break
    return low, steps


def whole_svds(x: np.ndarray) -> tuple[np.ndarray, None]:
    """The same inexact augmented Lagrangian with whole SVDs, of pyrpca."""
    from pyrpca import rpca_pcp_ialm

    return rpca_pcp_ialm(x, 1 / np.sqrt(max(x.shape)), verbose=False)[0], None


def projections(x: np.ndarray) -> tuple[np.ndarray, None]:
    """Accelerated alternating projections of the package rpca."""
    from rpca import RobustPCA

    fitted = RobustPCA(n_components=1, verbose=False).fit(x)
    return fitted.L_ + fitted.mean_, None


def median(x: np.ndarray) -> tuple[np.ndarray, None]:
    return np.broadcast_to(np.median(x, axis=0), x.shape), None


def truncated(x: np.ndarray) -> tuple[np.ndarray, None]:
    left, values, right = np.linalg.svd(x, full_matrices=False)
    return np.outer(left[:, 0] * values[0], right[0]), None


ARMS: dict[str, tuple[str, str, Arm]] = {
    "median of the frames": ("", "", median),
    "SVD, rank 1": ("", "", truncated),
    "robust SVD, rank 1, alpha = 0.3": ("rsvddpd", "", power_divergence(0.3)),
    "robust SVD, rank 1, alpha = 1": ("rsvddpd", "", power_divergence(1.0)),
    "GoDec, rank 1, a tenth sparse": ("godec", "", go),
    "robust PCA, warm subspaces": ("rpca-ialm", "", warm),
    "robust PCA, whole SVDs: pyrpca": ("", "pyrpca", whole_svds),
    f"robust PCA, constant step, whole SVDs, {STEPS} steps": ("", "", constant_step),
    "alternating projections, rank 1: rpca": ("", "rpca", projections),
}
"""The card, the package that is needed, and the arm."""


def decibels(error: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean(np.square(error))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, required=True, metavar="FILE", help="vtest.avi of opencv-doc")
    parser.add_argument("--block", type=int, default=8, help="pixels on a side that are averaged to one")
    parser.add_argument("--every", type=int, default=3, help="frame that is kept")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("estimators.film", options.json)
    whole = frames(options.film, options.block)
    film = whole[:: options.every]
    truth = np.median(whole, axis=0).ravel()
    rng = np.random.default_rng(0)
    where, grey = squares(film.shape, rng)
    flat = film.reshape(len(film), -1)
    shown = np.where(where, grey, film).reshape(flat.shape)
    still = where.reshape(flat.shape) & (np.abs(flat - truth) < 15)
    spoilt = rng.permutation(len(film))[: 2 * int(TAMPERED * len(film))]
    tampered = shown.copy()
    tampered[spoilt[::2]], tampered[spoilt[1::2]] = 0.0, 255.0
    for name, (method, package, arm) in ARMS.items():
        if package and not find_spec(package):
            continue
        what: dict[str, Any] = {"method": method, "arm": name, "frames": len(film), "pixels": flat.shape[1]}
        found: dict[str, Any] = {}
        for kind, x, kept in (
            ("clean", shown, slice(None)),
            ("tampered", tampered, np.delete(np.arange(len(film)), spoilt)),
        ):
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                background, steps = arm(x.copy())
            found[f"{kind}_seconds"] = time.process_time() - start
            found[f"{kind}_steps"] = steps
            found[f"{kind}_psnr"] = decibels((background - truth)[kept])
            found[f"{kind}_under"] = decibels((background - flat)[kept][still[kept]])
        rows.add(what, found)
        print(name, found, flush=True)


if __name__ == "__main__":
    main()
