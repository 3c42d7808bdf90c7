"""Rotated forests against forests of the same number of trees: Cohen's kappa.

    pip install scikit-learn rdata xarray aeon numba
    python -m benchmarks.estimators.forests --satellite Satellite.rda

The satellite data (6435 places, 4 bands of 9 pixels, 6 kinds of land) are those of R's package mlbench
(apt-get download r-cran-mlbench); without --satellite they are left out. Digits are those of scikit-learn. The package
rotation-forest, of 2016, is for a scikit-learn whose trees had other arguments, and fits no more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import train_test_split

from benchmarks.common.rows import Rows, add_option
from benchmarks.common.seeds import Found, medians
from benchmarks.estimators.draws import ahead
from eckart.estimators.rotation_forest import RotationForest

MEMBERS, TREES = 10, 10
PEER = "scikit-learn's RandomForest"
HELD = 0.3
"""Of the rows of a split."""


def tables(satellite: Path | None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    yield "digits", *load_digits(return_X_y=True)
    if satellite is not None:
        import rdata

        frame = rdata.read_rda(satellite)["Satellite"]
        yield "satellite", frame.iloc[:, :-1].to_numpy(float), frame.iloc[:, -1].astype(str).to_numpy()


def aeon_forest(seed: int) -> Any:
    from aeon.classification.sklearn import RotationForestClassifier

    return RotationForestClassifier(MEMBERS * TREES, random_state=seed)


def kappas(
    splits: int, satellite: Path | None, only: list[str] | None = None, names: list[str] | None = None
) -> Iterator[Found]:
    """Kappa on what was held out, and seconds of the processor for a fit."""
    for name, x, y in tables(satellite):
        if names and name not in names:
            continue
        for seed in range(splits):
            learned, new, target, truth = train_test_split(x, y, test_size=HELD, stratify=y, random_state=seed)
            arms: dict[str, Callable[[], Any]] = {
                kind: lambda kind=kind, s=seed: RotationForest(kind, n_members=MEMBERS, n_trees=TREES, random_state=s)
                for kind in ("pca", "sparse", "haar", "none")
            }
            arms["pca, a rotation a tree"] = lambda s=seed: RotationForest(
                n_members=MEMBERS * TREES, n_trees=1, max_features=None, bootstrap=False, random_state=s
            )
            arms[PEER] = lambda s=seed: RandomForestClassifier(MEMBERS * TREES, random_state=s)
            arms["scikit-learn's ExtraTrees"] = lambda s=seed: ExtraTreesClassifier(MEMBERS * TREES, random_state=s)
            if find_spec("aeon"):
                arms["aeon's RotationForest"] = lambda s=seed: aeon_forest(s)
            for arm, made in arms.items():
                if only and arm not in only:
                    continue
                if not seed:  # What is compiled at first use is no part of a fit.
                    made().fit(learned[:300], target[:300])
                start = time.process_time()
                fitted = made().fit(learned, target)
                seconds = time.process_time() - start
                what = {"part": "kappa", "method": "rotation-forest", "data": name, "arm": arm, "seed": seed}
                kappa = float(cohen_kappa_score(truth, fitted.predict(new)))
                yield what | {"trees": MEMBERS * TREES}, {"kappa": kappa, "seconds": seconds}


def by_forests(found: list[Found]) -> dict[tuple[str, str], dict[str, float]]:
    """Differences of kappa from scikit-learn's random forests of the same splits, and their standard errors."""
    kappa: dict[tuple[str, str], dict[int, float]] = {}
    for what, numbers in found:
        kappa.setdefault((what["data"], what["arm"]), {})[what["seed"]] = numbers["kappa"]
    compared = {}
    for (data, arm), each in kappa.items():
        peer = kappa.get((data, PEER), {})
        if arm != PEER and peer.keys() == each.keys():
            more, error = ahead(list(each.values()), [peer[seed] for seed in each], HELD / (1 - HELD))
            compared[data, arm] = {"by random forests": more, "error": error}
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--satellite", type=Path, metavar="FILE")
    parser.add_argument("--arm", action="append", help="of the arms; all where it is left out")
    parser.add_argument("--data", action="append", help="of the tables; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("estimators.forests", options.json)
    found = list(kappas(options.splits, options.satellite, options.arm, options.data))
    compared = by_forests(found)
    for what, numbers in medians(found):
        rows.add(what, numbers | compared.get((what["data"], what["arm"]), {}))


if __name__ == "__main__":
    main()
