"""Private sums of similarities and classes by them, on pictures of clothes: errors and accuracies by epsilon.

pip install scikit-learn; pip install --no-deps opacus opt_einsum
python -m benchmarks.kernels.private
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.common.rows import Rows, add_option
from eckart.kernels._private import Fourier
from eckart.kernels.private_similarity import PrivateKernelSum
from eckart.kernels.private_similarity_classifier import PrivateSimilarityClassifier

Found = tuple[dict[str, Any], dict[str, Any]]
NAME = "private-similarity"
FASHION = Path("/usr/share/datasets/fashion-mnist")
GAMMA, SEEDS = 0.02, 3


def pictures(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in [0, 1] (n, 784), and classes."""
    images = gzip.decompress((FASHION / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FASHION / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)[:count] / 255.0
    return x, np.frombuffer(labels, np.uint8, offset=8)[:count].astype(int)


def lsq(x: np.ndarray, y: np.ndarray, epsilon: float, m: int, rng: np.random.Generator) -> np.ndarray:
    """Sums by m features sqrt(2) cos(w x + b), with noise of Laplace of sqrt(2) m / epsilon, from the formula."""
    w, b = rng.standard_normal((784, m)) * np.sqrt(2 * GAMMA), rng.uniform(0, 2 * np.pi, m)
    told = (np.sqrt(2) * np.cos(x @ w + b)).sum(0) + rng.laplace(0, np.sqrt(2) * m / epsilon, m)
    return (np.sqrt(2) * np.cos(y @ w + b)) @ told / m


def sums() -> Iterator[Found]:
    """The root mean square error of sums of a Gaussian kernel by the mean of the sums; one point added or removed."""
    (x, _), (y, _) = pictures("train", 10000), pictures("t10k", 300)
    far = np.square(x).sum(1) + np.square(y).sum(1)[:, None] - 2 * y @ x.T
    truth = np.exp(-GAMMA * far).sum(1)
    for epsilon in (0.1, 0.3, 1.0):
        arms: dict[str, Any] = {
            "gaussian, 4000": {"n_features": 4000},
            "gaussian, 1000": {"n_features": 1000},
            "laplace, 1000": {"n_features": 1000, "delta": 0.0},
            "lsq, 1000": None,
        }
        for arm, options in arms.items():
            errors, seconds = [], 0.0
            for seed in range(SEEDS):
                start = time.process_time()
                if options is None:
                    said = lsq(x, y, epsilon, 1000, np.random.default_rng(seed))
                else:
                    fitted = PrivateKernelSum("rbf", epsilon, gamma=GAMMA, random_state=seed, **options).fit(x)
                    said = fitted.transform(y)[:, 0]
                seconds += (time.process_time() - start) / SEEDS
                errors.append(np.sqrt(np.mean((said - truth) ** 2)) / truth.mean())
            what = {"part": "sums", "method": NAME, "arm": arm, "epsilon": epsilon, "n": len(x), "seeds": SEEDS}
            yield what, {"error": float(np.mean(errors)), "seconds": seconds, "mean": float(truth.mean())}


def classes() -> Iterator[Found]:
    """Accuracy on 1000 test pictures by epsilon at delta 1e-6, 10000 to learn from; beside what is not private."""
    (x, y), (new, truth) = pictures("train", 10000), pictures("t10k", 1000)
    arms: dict[str, dict[str, Any]] = {
        "mean similarity": {"kernel": "rbf", "gamma": GAMMA, "n_features": 1000},
        "nearest mean": {"kernel": "sqeuclidean", "bounds": 12.0},
    }
    for arm, options in arms.items():
        for epsilon in (0.1, 0.3, 1.0, 1e6):
            scores, seconds = [], 0.0
            for seed in range(SEEDS):
                start = time.process_time()
                fitted = PrivateSimilarityClassifier(epsilon=epsilon, random_state=seed, **options).fit(x, y)
                seconds += (time.process_time() - start) / SEEDS
                scores.append(float(np.mean(fitted.predict(new) == truth)))
            what = {"part": "classes", "method": NAME + "-classifier", "arm": arm, "epsilon": epsilon, "n": len(x)}
            yield what, {"accuracy": float(np.mean(scores)), "spread": float(np.std(scores)), "seconds": seconds}
    start = time.process_time()
    map_ = Fourier(np.random.default_rng(0).standard_normal((250, 784)) * np.sqrt(2 * GAMMA), 1.0)
    linear = LogisticRegression(C=10, max_iter=40).fit(map_.features(x), y)
    seconds = time.process_time() - start
    what = {"part": "classes", "method": NAME + "-classifier", "arm": "logistic regression, not private", "n": len(x)}
    yield what | {"epsilon": 1e6}, {"accuracy": float(linear.score(map_.features(new), truth)), "seconds": seconds}


def trained() -> Iterator[Found]:
    """Accuracy and seconds of a linear machine by private gradients, opacus', on 250 random features, 20 passes."""
    import torch
    from opacus import PrivacyEngine

    (x, y), (new, truth) = pictures("train", 10000), pictures("t10k", 1000)
    map_ = Fourier(np.random.default_rng(0).standard_normal((250, 784)) * np.sqrt(2 * GAMMA), 1.0)
    phi, there = (torch.from_numpy(map_.features(each)).float() for each in (x, new))
    for epsilon in (0.1, 0.3, 1.0):
        scores, seconds = [], 0.0
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            start = time.process_time()
            net = torch.nn.Linear(phi.shape[1], 10)
            optimizer = torch.optim.SGD(net.parameters(), lr=4.0, momentum=0.9)
            data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(phi, torch.from_numpy(y)), 1000)
            net, optimizer, data = PrivacyEngine().make_private_with_epsilon(
                module=net, optimizer=optimizer, data_loader=data, epochs=20, max_grad_norm=1.0, target_delta=1e-6,
                target_epsilon=epsilon,
            )  # fmt: skip
            for _ in range(20):
                for one, label in data:
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(net(one), label).backward()
                    optimizer.step()
            seconds += (time.process_time() - start) / SEEDS
            with torch.no_grad():
                scores.append(float((net(there).argmax(1).numpy() == truth).mean()))
        what = {"part": "classes", "method": NAME + "-classifier", "arm": "private gradients (opacus)", "n": len(x)}
        found = {"accuracy": float(np.mean(scores)), "spread": float(np.std(scores)), "seconds": seconds}
        yield what | {"epsilon": epsilon}, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PART", help="of the parts; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("kernels.private", options.json)
    parts = {"sums": sums, "classes": classes, "trained": trained}
    for name in options.only or parts:
        for what, found in parts[name]():
            rows.add(what, found)
            print({k: v for k, v in what.items() if k not in ("part", "method")}, found, flush=True)


if __name__ == "__main__":
    main()
