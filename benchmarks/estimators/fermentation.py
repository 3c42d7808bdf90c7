"""Spectra of a fermentation as mixtures of two, against what a laboratory measured of the same broth.

    pip install 'eckart[data]' chemotools          # for its data; nothing of it is run
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.fermentation --json benchmarks/results/estimators.jsonl

1629 infrared spectra in 34 hours, one in 75 seconds, of which every eighth is taken, and sugar and alcohol by liquid
chromatography at some hours. No method sees these: a share is held against them by its correlation over the hours. Then
a twentieth of the bands is replaced by uniform noise, as by a detector that is broken there.
"""

from __future__ import annotations

import argparse
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.draws import timed
from eckart.estimators.nmf import NonnegativeFactorization
from eckart.estimators.unmixing_l21 import RobustUnmixing

BANDS, EVERY, HOURS = (950.0, 1550.0), 8, 1.25 / 60
"""Wave numbers that are used (1/cm), which spectra, and the time between two."""


def fermentation(folder: Path | None = None) -> tuple[np.ndarray, np.ndarray, Any]:
    """Hours (n,), spectra (n, bands), and a table of what was measured at "time" (hours)."""
    if folder is None:
        spec = find_spec("chemotools")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0], "datasets", "data")
    spectra = pd.read_csv(folder / "fermentation_spectra.csv")
    wave = spectra.columns.astype(float)
    x = spectra.loc[:, (wave >= BANDS[0]) & (wave <= BANDS[1])].to_numpy(float)[::EVERY]
    return np.arange(len(x)) * EVERY * HOURS, np.maximum(x, 0.0), pd.read_csv(folder / "fermentation_hplc.csv")


def told(hours: np.ndarray, shares: np.ndarray, measured: Any) -> tuple[dict[str, float], int]:
    """Correlations with sugar and alcohol of the share that follows sugar best, means over an hour; and its number."""
    window = np.abs(hours[:, None] - measured["time"].to_numpy()) <= 0.5
    means = (shares.T @ window) / window.sum(axis=0)
    found = {
        name: [float(np.corrcoef(each, measured[name])[0, 1]) for each in means] for name in ("glucose", "ethanol")
    }
    best = int(np.argmax(found["glucose"]))
    return {name: values[best] for name, values in found.items()}, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="with the two tables; chemotools' otherwise")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("estimators.fermentation", options.json)
    hours, x, measured = fermentation(options.folder)
    measured = measured[measured["time"] <= hours[-1] + 0.25]
    spoilt = x.copy()
    broken = np.random.default_rng(0).choice(x.shape[1], x.shape[1] // 20, replace=False)
    spoilt[:, broken] = np.random.default_rng(1).uniform(0, x.max(), (len(x), len(broken)))
    arms: dict[str, tuple[str, Any]] = {
        "norms of bands": ("unmixing-l21", RobustUnmixing(2)),
        "squares": ("unmixing-l21", RobustUnmixing(2, robust=False)),
        "nmf": ("nmf", NonnegativeFactorization(2, random_state=0)),
    }
    for sound, table in (("all", x), ("19 of 20", spoilt)):
        for arm, (method, model) in arms.items():
            shares, seconds = timed(lambda m=model, t=table: m.fit(t).transform(t))
            shares = shares / shares.sum(axis=1, keepdims=True)
            scores, best = told(hours, shares, measured)
            what = {"method": method, "arm": arm, "sound": sound, "spectra": len(x), "bands": x.shape[1]}
            at = slice(None, None, 3)
            curve = np.stack([hours[at], shares[at, best]], axis=1).round(4).tolist()
            points = measured[["time", "glucose"]].to_numpy(float).round(4).tolist()
            rows.add(what, scores | {"seconds": seconds, "curve": curve, "measured": points})
            print(what, scores, seconds, flush=True)


if __name__ == "__main__":
    main()
