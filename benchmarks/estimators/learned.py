"""Clusters of features, values of features that are worth keeping, and normalized covariances, beside plain ways.

    pip install 'eckart[data]' recbole aeon-neuro pyriemann spd-learn
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.learned [--part PART] --json benchmarks/results/estimators.jsonl

Data are read from the packages; nothing of them is run. Clusters: digits of scikit-learn, and a folder of Fashion-MNIST
(--fashion, Debian's dataset-fashion-mnist by default). All settings are the defaults, which knew none of these sets.
Differences are paired, of the same draw or split: mean and standard error.
"""

from __future__ import annotations

import argparse
import gzip
import warnings
from collections.abc import Iterator, Sequence
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
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.draws import Found, ahead, middle, timed
from benchmarks.estimators.trials import trials
from eckart.estimators.augmented_covariance import AugmentedCovariance, shrunk
from eckart.estimators.augmented_covariance import covariances as channels
from eckart.estimators.manifold_linearize_cluster import CodingRateClustering
from eckart.estimators.optfs import GatedFeatureValues
from eckart.estimators.spd_bures_wasserstein import BuresNormalizer

TASKS, SHRINKAGES = ("SelfRegulationSCP1", "HandMovementDirection", "FingerMovements"), ("oas", 0.0)
START, SPECTRAL = "its start: principal components", "spectral, 10 neighbours"
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
        START: lambda s: CodingRateClustering(10, max_iter=0, random_state=s),
        SPECTRAL: lambda s: SpectralClustering(10, affinity="nearest_neighbors", random_state=s),
        "k-means": lambda s: KMeans(10, n_init=10, random_state=s),
    }
    for data, (x, y) in sets.items():
        measured: dict[str, list[tuple[float, float, float]]] = {}
        for arm, make in arms.items():
            found = measured[arm] = []
            for seed in range(seeds):
                rows = np.random.default_rng(seed).choice(len(x), 1000, replace=False)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fitted, seconds = timed(lambda m=make, s=seed, r=rows, x=x: m(s).fit(x[r]))
                said = fitted.labels_
                found.append((accuracy(said, y[rows]), normalized_mutual_info_score(y[rows], said), seconds))
        peer = [each[0] for each in measured[SPECTRAL]]
        start = [each[0] for each in measured[START]]
        for arm, found in measured.items():
            right, shared, seconds = middle(found)
            (more, error), (gain, spread) = (ahead([each[0] for each in found], other) for other in (peer, start))
            what = {"part": "clusters", "method": "manifold-linearize-cluster", "data": data, "arm": arm}
            numbers = {"accuracy": right, "nmi": shared, "seconds": seconds}
            compared = {} if arm == SPECTRAL else {"by spectral": more, "error": error}
            compared |= {} if arm == START else {"by its start": gain, "error of that": spread}
            yield what | {"samples": 1000, "seeds": seeds}, numbers | compared


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
    shares = [1.0] * seeds
    areas: dict[str, list[float]] = {}
    for arm, options in arms.items():
        found = []
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            given, held = order[: len(y) * 4 // 5], order[len(y) * 4 // 5 :]
            options = options | ({"keep": shares[seed]} if arm.startswith("frequency") else {})
            model = GatedFeatureValues(random_state=seed, **common | options)
            _, seconds = timed(lambda m=model, g=given: m.fit(x[g], y[g]))
            said = model.decision_function(x[held])
            loss = log_loss(y[held], 1 / (1 + np.exp(-said)))
            shares[seed] = float(model.kept_.mean())
            found.append((roc_auc_score(y[held], said), loss, shares[seed], seconds))
        areas[arm] = [each[0] for each in found]
        area, loss, kept, seconds = middle(found)
        what = {"part": "values", "method": "optfs", "arm": arm, "rows": len(y), "seeds": seeds}
        numbers = {"auc": area, "loss": loss, "kept": kept, "seconds": seconds}
        if arm != "all":
            numbers["by all"], numbers["error"] = ahead(areas[arm], areas["all"], 0.25)
        if arm.startswith("gates"):
            gates = arm
        elif arm != "all":
            # Of the gates that chose how many, over this arm.
            numbers["gates by this"], numbers["error of that"] = ahead(areas[gates], areas[arm], 0.25)
        yield what, numbers


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


class SPDNet:
    """spd-learn's network on covariances as it comes, 50 epochs of Adam; what it says, in the place of vectors."""

    def __init__(self, labels: np.ndarray, seed: int) -> None:
        self.names, self.seed = np.unique(labels), seed

    def fit(self, x: np.ndarray, labels: np.ndarray) -> SPDNet:
        from spd_learn.models import SPDNet as Network

        torch.manual_seed(self.seed)
        self.unit = np.trace(x, axis1=1, axis2=2).mean() / x.shape[-1]
        data, target = torch.tensor(x / self.unit), torch.tensor(np.searchsorted(self.names, labels))
        self.network = Network("cov", n_chans=x.shape[-1], n_outputs=len(self.names)).double()
        optimizer = torch.optim.Adam(self.network.parameters(), 2.5e-3)
        for _ in range(50):
            for rows in torch.randperm(len(data)).split(30):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(self.network(data[rows]), target[rows]).backward()
                optimizer.step()
        return self

    def score(self, x: np.ndarray, labels: np.ndarray) -> float:
        with torch.no_grad():
            said = self.network(torch.tensor(x / self.unit)).argmax(1).numpy()
        return float((self.names[said] == labels).mean())


def splits(count: int, tasks: Sequence[str] = TASKS) -> Iterator[Found]:
    """The same in splits of the size they come with, beside pyriemann and a network of spd-learn, by pairs."""
    arms = dict(TANGENTS)
    if find_spec("pyriemann"):
        from pyriemann.tangentspace import TangentSpace

        arms |= {
            f"pyriemann, {metric}": lambda m=metric: TangentSpace(metric=m) for metric in ("riemann", "wasserstein")
        }
    for task in tasks:
        (x, y), (new, truth) = trials(task, "TRAIN"), trials(task, "TEST")
        x, y, held = np.concatenate([x, new]), np.concatenate([y, truth]), len(truth)
        for shrinkage in SHRINKAGES:
            whole = shrunk(channels(x), x.shape[-1], shrinkage)
            condition = float(np.median(np.linalg.cond(whole)))
            found: dict[str, list[float]] = {}
            for seed in range(count):
                one, other = train_test_split(np.arange(len(y)), test_size=held, stratify=y, random_state=seed)
                for arm, make in arms.items():
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        model: Any = AugmentedCovariance(1, shrinkage=shrinkage) if make is None else make()
                        data = x if make is None else whole
                        a, b = model.fit_transform(data[one]), model.transform(data[other])
                        linear = LogisticRegressionCV(Cs=[0.001, 0.01, 0.1], max_iter=500)
                        linear = make_pipeline(StandardScaler(), linear).fit(a, y[one])
                    found.setdefault(arm, []).append(float(linear.score(b, y[other])))
                if find_spec("spd_learn"):
                    network = SPDNet(y, seed).fit(whole[one], y[one])
                    found.setdefault("spd-learn's SPDNet", []).append(network.score(whole[other], y[other]))
            for arm, values in found.items():
                what = {"part": "splits", "method": "spd-bures-wasserstein", "task": task, "arm": arm}
                what |= {"shrinkage": str(shrinkage), "test trials": held, "splits": count}
                numbers = {"accuracy": float(np.mean(values)), "condition": condition}
                if arm != "affine invariant":
                    more, error = ahead(values, found["affine invariant"], held / (len(y) - held))
                    numbers |= {"by affine": more, "error": error}
                yield what, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--seeds", type=int, default=10, help="draws, and splits")
    parser.add_argument("--task", action="append", choices=TASKS, help="of the splits; all where it is left out")
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="FOLDER")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("estimators.learned", options.json)
    parts: dict[str, Any] = {
        "covariances": covariances,
        "splits": lambda: splits(options.seeds, options.task or TASKS),
        "clusters": lambda: clusters(options.seeds, options.fashion),
        "values": lambda: values(options.seeds),
    }
    for name in options.part or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k != "part"}, found, flush=True)


if __name__ == "__main__":
    main()
