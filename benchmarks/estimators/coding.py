"""Sparse codes of patches of photographs by several penalties, and k terms of orthogonal dictionaries.

    pip install scikit-learn scikit-image pillow
    python -m benchmarks.estimators.coding

Patches are grey, without their mean. Dictionaries are learned on four pictures that scikit-image carries (camera,
astronaut, chelsea, coffee) and judged on two others (rocket, coins). "refit" is least squares on the support of a code.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.fft import dct
from sklearn.decomposition import PCA, MiniBatchDictionaryLearning
from sklearn.linear_model import orthogonal_mp_gram

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.estimators.beyond_l1_coding import ThresholdDictionary, refitted
from eckart.estimators.online_orthogonal_dictionary import (
    OrthogonalDictionary,
    frank_wolfe_step,
    largest_entries,
    matching_stretching_projection,
)
from eckart.linalg.polar import polar

LEARNED = ("camera.png", "astronaut.png", "chelsea.png", "coffee.png")
JUDGED = ("rocket.jpg", "coins.png")
ACTIVE = (0.02, 0.05, 0.08)
THRESHOLDS = {
    "soft": (0.6, 0.9, 1.3, 2.0, 2.8),
    "half": (0.6, 0.9, 1.3, 1.7, 2.2),
    "hard": (0.4, 0.6, 0.9, 1.2, 1.6),
    "cel0": (0.6, 0.9, 1.3, 1.8, 2.5),
}


def patches(names: tuple[str, ...], side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Patches (count, side * side) of grey values in 0..1, as many from each picture, each without its mean."""
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    found = []
    for name in names:
        picture = np.asarray(Image.open(Path(spec.submodule_search_locations[0], "data", name)), np.float64) / 255
        grey = picture[..., :3] @ [0.299, 0.587, 0.114] if picture.ndim == 3 else picture
        windows = np.lib.stride_tricks.sliding_window_view(grey, (side, side))
        each = count // len(names)
        rows, columns = (rng.integers(0, size, each) for size in windows.shape[:2])
        found.append(windows[rows, columns].reshape(each, -1))
    x = np.concatenate(found)
    return x - x.mean(axis=1, keepdims=True)


def whitened(side: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Patches to learn from and to judge by, both times (C + 1e-3 |C|)^-1/2, C the covariance of the first."""
    learned, judged = patches(LEARNED, side, count, rng), patches(JUDGED, side, count // 4, rng)
    values, vectors = np.linalg.eigh(np.cov(learned.T))
    whitener = (vectors / np.sqrt(values + 1e-3 * values[-1])) @ vectors.T
    return learned @ whitener, judged @ whitener


def decibels(x: np.ndarray, near: np.ndarray) -> float:
    return float(10 * np.log10(np.square(x).sum() / np.square(x - near).sum()))


def at(active: list[float], snr: list[float]) -> dict[str, float]:
    """Decibels at the shares of `ACTIVE`, between measured ones by the logarithm of the share; none beyond them."""
    order = np.argsort(active)
    shares, values = np.log(np.array(active)[order]), np.array(snr)[order]
    inside = [share for share in ACTIVE if shares[0] <= np.log(share) <= shares[-1]]
    return {f"{share:.0%}": float(np.interp(np.log(share), shares, values)) for share in inside}


def pursuits(x: np.ndarray, atoms: np.ndarray) -> dict[str, float]:
    """SNR of orthogonal matching pursuit down to a residual that is the same for all patches, by share of entries."""
    gram, active, snr = atoms @ atoms.T, [], []
    for share in (0.75, 0.55, 0.35, 0.2, 0.1, 0.05):
        bound = share * float(np.square(x).sum(axis=1).mean())
        codes = orthogonal_mp_gram(gram, atoms @ x.T, tol=bound, norms_squared=np.square(x).sum(axis=1)).T
        active.append(float((codes != 0).mean()))
        snr.append(decibels(x, codes @ atoms))
    return at(active, snr)


def codes(seeds: int) -> Iterator[Found]:
    """SNR of held-out patches at the same share of entries that are not zero."""
    side, size, count = 10, 200, 2000
    for seed in range(seeds):
        learned, judged = whitened(side, count, np.random.default_rng(seed))
        what = {"part": "codes", "method": "beyond-l1-coding", "side": side, "atoms": size, "patches": len(learned)}
        for kind, thresholds in THRESHOLDS.items():
            active, plain, refit, pursued = [], [], [], {}
            for threshold in thresholds:
                fitted = ThresholdDictionary(
                    size, penalty=kind, threshold=threshold, max_iter=15, tol=1e-4, random_state=seed
                ).fit(learned)
                found = fitted.transform(judged)
                active.append(float((found != 0).mean()))
                plain.append(decibels(judged, found @ fitted.components_))
                refit.append(decibels(judged, refitted(found, judged, fitted.components_) @ fitted.components_))
                if threshold == thresholds[2]:
                    pursued = pursuits(judged, fitted.components_)
            yield what | {"arm": kind, "seed": seed}, at(active, plain)
            yield what | {"arm": f"{kind}, refit", "seed": seed}, at(active, refit)
            yield what | {"arm": f"atoms of {kind}, matching pursuit", "seed": seed}, pursued
        peer = MiniBatchDictionaryLearning(size, alpha=1.0, max_iter=15, batch_size=256, random_state=seed)
        atoms = peer.fit(learned / learned.std()).components_
        norms = np.linalg.norm(atoms, axis=1, keepdims=True)
        atoms = atoms / np.where(norms > 0, norms, 1)
        arm = "scikit-learn's MiniBatchDictionaryLearning, matching pursuit"
        yield what | {"arm": arm, "seed": seed}, pursuits(judged, atoms)


def terms(seeds: int) -> Iterator[Found]:
    """PSNR of held-out patches of 8 x 8 from their 8 best terms of 64, and seconds of the processor."""
    side, kept = 8, 8
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        learned, judged = patches(LEARNED, side, 40000, rng), patches(JUDGED, side, 4000, rng)
        what = {"part": "terms", "method": "online-orthogonal-dictionary", "side": side, "terms": kept, "seed": seed}
        what["patches"] = len(learned)

        def psnr(near: np.ndarray, x: np.ndarray = judged) -> float:
            return float(-10 * np.log10(np.square(x - near).mean()))

        basis = np.kron(dct(np.eye(side), norm="ortho", axis=0), dct(np.eye(side), norm="ortho", axis=0))
        yield what | {"arm": "DCT"}, {"psnr": psnr(largest_entries(judged @ basis.T, kept) @ basis), "seconds": 0.0}
        arms: dict[str, Callable[[], Any]] = {
            "whole table": lambda s=seed: OrthogonalDictionary(kept, whiten=False, random_state=s),
            "whole table, white": lambda s=seed: OrthogonalDictionary(kept, random_state=s),
            "stream": lambda s=seed: OrthogonalDictionary(
                kept, whiten=False, method="online", batch_size=64, random_state=s
            ),
            "stream, white": lambda s=seed: OrthogonalDictionary(kept, method="online", batch_size=64, random_state=s),
        }
        for arm, made in arms.items():
            start = time.process_time()
            fitted = made().fit(learned)
            seconds = time.process_time() - start
            near = fitted.inverse_transform(fitted.transform(judged))
            yield what | {"arm": arm}, {"psnr": psnr(near), "seconds": seconds}
        start = time.process_time()
        principal = PCA().fit(learned)
        seconds = time.process_time() - start
        near = principal.inverse_transform(largest_entries(principal.transform(judged), kept))
        yield what | {"arm": "scikit-learn's PCA, largest terms"}, {"psnr": psnr(near), "seconds": seconds}
        start = time.process_time()
        peer = MiniBatchDictionaryLearning(64, alpha=0.2, max_iter=1, batch_size=256, random_state=seed).fit(learned)
        seconds = time.process_time() - start
        atoms = peer.components_ / np.linalg.norm(peer.components_, axis=1, keepdims=True)
        found = orthogonal_mp_gram(atoms @ atoms.T, atoms @ judged.T, n_nonzero_coefs=kept).T
        yield (
            what | {"arm": "scikit-learn's MiniBatchDictionaryLearning, matching pursuit"},
            {"psnr": psnr(found @ atoms), "seconds": seconds},
        )


def stream(seeds: int) -> Iterator[Found]:
    """How far planted atoms are from what a stream of batches, and the table of the same rows, gave."""
    p, batch = 32, 32
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        planted = polar(rng.standard_normal((p, p)))
        d, gradient = polar(rng.standard_normal((p, p))), np.zeros((p, p))
        rows = []
        for t in range(1, 3001):
            sparse = rng.standard_normal((batch, p)) * (rng.random((batch, p)) < 0.2)
            rows.append(sparse @ planted / np.sqrt(0.2))
            d, gradient = frank_wolfe_step(rows[-1], d, gradient, t)
            if t in (30, 100, 300, 1000, 3000):
                what = {"part": "stream", "method": "online-orthogonal-dictionary", "features": p, "batch": batch}
                what |= {"batches": t, "seed": seed}
                table = matching_stretching_projection(np.concatenate(rows), generator=seed).value if t < 3000 else d
                errors = {
                    name: float(1 - np.abs(planted @ polar(found)).max(axis=1).mean())
                    for name, found in (("stream", d), ("whole table", table))
                }
                if t == 3000:
                    del errors["whole table"]
                yield what, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("estimators.coding", options.json)
    parts = {"codes": codes, "terms": terms, "stream": stream}
    for name in options.only or parts:
        for what, found in medians(parts[name](options.seeds)):
            rows.add(what, found)


if __name__ == "__main__":
    main()
