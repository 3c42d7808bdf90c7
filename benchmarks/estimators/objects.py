"""What moves in a film, pixel by pixel: unrolled robust PCA that learned from masks, beside what needs none.

    apt-get download opencv-doc && dpkg -x opencv-doc_*.deb ROOT     # its vtest.avi: 795 frames of 576 x 768
    pip install imageio imageio-ffmpeg
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.objects --film ROOT/usr/share/doc/opencv-doc/examples/data/...

The frames of `benchmarks.estimators.film` with its three squares. What moves is the squares, whose place is known, and
what is farther than 15 grey levels from the median of the whole film: people, by a rule and not by hand. Thresholds
are those of the best overlap in the first half of the frames, from which masks are learned too; told is the second.
What needs no masks has all frames; learned filters see one image at a time, or its difference from the median.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from benchmarks.estimators.film import frames, go, median, power_divergence, squares, warm
from eckart.estimators.rpca_unfolded import UnfoldedRobustPCA

FAR = 15
"""Grey levels from the median of the whole film: the noise is 2."""
TAUGHT, EPOCHS = 2, 30
"""Every second frame of the first half is learned from, so often."""
Scores = Callable[[], np.ndarray]
"""How far from background (frames, rows, columns) is."""


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of all frames together."""
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, required=True, metavar="FILE", help="vtest.avi of opencv-doc")
    parser.add_argument("--block", type=int, default=8, help="pixels on a side that are averaged to one")
    parser.add_argument("--every", type=int, default=3, help="frame that is kept")
    parser.add_argument("--draws", type=int, default=5, help="of squares, and of what filters begin with")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = Rows("estimators.objects", options.json)
    whole = frames(options.film, options.block)
    for what, told in medians(each for seed in range(options.draws) for each in overlaps(whole, options.every, seed)):
        rows.add(what, told)


def overlaps(whole: np.ndarray, every: int, seed: int) -> Iterator[Found]:
    """Of one draw of the squares, arm by arm: overlap, share of the squares, and processor seconds."""
    film, middle = whole[::every], np.median(whole, axis=0)
    where, grey = squares(film.shape, np.random.default_rng(seed))
    shown, truth = np.where(where, grey, film), where | (np.abs(film - middle) > FAR)
    flat, half = shown.reshape(len(shown), -1), len(shown) // 2
    still = np.median(shown, axis=0)

    def apart(arm: Callable[[np.ndarray], tuple[np.ndarray, int | None]]) -> Scores:
        return lambda: np.abs(flat - arm(flat.copy())[0]).reshape(shown.shape)

    def learned(x: np.ndarray, **arguments: bool) -> Scores:
        def scores() -> np.ndarray:
            model = UnfoldedRobustPCA(max_iter=EPOCHS, random_state=seed, **arguments)
            model.fit(x[:half:TAUGHT], truth[:half:TAUGHT].astype(float))
            found: np.ndarray = model.transform(x)
            return found

        return scores

    arms: dict[str, tuple[str, Scores]] = {
        "median of the frames": ("", apart(median)),
        "robust SVD, rank 1, alpha = 1": ("rsvddpd", apart(power_divergence(1.0))),
        "GoDec, rank 1, a tenth sparse": ("godec", apart(go)),
        "robust PCA": ("rpca-ialm", apart(warm)),
        "unrolled, images": ("rpca-unfolded", learned(shown)),
        "unrolled, differences from the median": ("rpca-unfolded", learned(shown - still)),
        "unrolled, differences, overwriting": ("rpca-unfolded", learned(shown - still, overwrite=True)),
    }
    for name, (method, arm) in arms.items():
        start = time.process_time()
        scores = arm()
        seconds = time.process_time() - start
        edges = np.unique(np.quantile(scores[:half], np.linspace(0.5, 0.999, 100)))
        edge = max(edges, key=lambda e, s=scores: overlap(s[:half] > e, truth[:half]))
        found = scores[half:] > edge
        squared = float((found & where[half:]).sum() / where[half:].sum())
        what = {"method": method, "arm": name, "frames": len(film), "pixels": flat.shape[1]}
        told = {"overlap": overlap(found, truth[half:]), "squares": squared, "seconds": seconds}
        yield what | {"seed": seed}, told | {"moving": float(truth[half:].mean())}


if __name__ == "__main__":
    main()
