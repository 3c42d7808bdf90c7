"""Tangent kernels: how near networks come to them as they grow wide, and what they predict beside a Gaussian kernel.

    OMP_NUM_THREADS=1 python -m benchmarks.kernels.tangent --json benchmarks/results/kernels.jsonl

Digits are those of scikit-learn. Fashion-MNIST lies in /usr/share/datasets/fashion-mnist (the Debian package
dataset-fashion-mnist). Every kernel has the ridge, and a Gaussian or Laplacian one the width, of the least error left
out. Accuracies are means of five splits; `behind` is how much the Gaussian kernel is ahead, paired by split, and `se`
its standard error. Seconds are of the processor, of all splits, on a machine that others used too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.common.kernel_ridge import classified
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from eckart.kernels import Kernel, Laplacian
from eckart.kernels.ntk import NTK, empirical_ntk, trained
from eckart.kernels.rbf import RBF
from eckart.machine import peak_rss_bytes

Found = tuple[dict[str, Any], dict[str, Any]]
SPLITS = 5
FASHION = Path("/usr/share/datasets/fashion-mnist")


class Network(nn.Module):
    """ReLU layers in the paper's parametrization, without biases."""

    def __init__(self, inputs: int, width: int, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth, 1]
        drawn = (torch.randn(n, m, generator=generator, dtype=torch.float64) for m, n in pairwise(sizes))
        self.weights = nn.ParameterList(drawn)

    def forward(self, x: Tensor) -> Tensor:
        for i, w in enumerate(self.weights):
            x = (x.relu() if i else x) @ w.T * (2 / w.shape[1]) ** 0.5
        return x[:, 0]


Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def clothes(seed: int) -> Split:
    """1500 pictures of clothes, each of unit length, their classes, and 2000 others with theirs."""

    def some(part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        pictures, labels = fashion(FASHION, part)
        chosen = np.random.default_rng(seed).permutation(len(labels))[:count]
        x = pictures[chosen].flatten(1).double().numpy() * 90 + 72.9
        return x / np.linalg.norm(x, axis=1, keepdims=True), labels[chosen].numpy()

    return *some("train", 1500), *some("t10k", 2000)


def digits(seed: int) -> Split:
    """900 digits, their classes, and the 897 others with theirs."""
    pictures = load_digits()
    order = np.random.default_rng(seed).permutation(len(pictures.data))
    x, y = pictures.data[order] / 16, pictures.target[order]
    return x[:900], y[:900], x[900:], y[900:]


def widths() -> Iterator[Found]:
    """Distance to the limit at the start, and of what training says to gradient flow of the limit."""
    pictures = load_digits()
    x = torch.from_numpy(pictures.data[:24] / 16)
    y = torch.from_numpy(pictures.target[:24] % 2 * 2.0 - 1)
    limit = NTK(2)(x).detach()
    steps, length = 100, 4.0 / float(torch.linalg.eigvalsh(limit)[-3])
    for width in (32, 128, 512):
        near, far = [], []
        for seed in range(10):
            net = Network(64, width, 2, torch.Generator().manual_seed(seed))
            near.append(float((empirical_ntk(net, x) - limit).norm() / limit.norm()))
            if seed > 3:
                continue
            start = net(x).detach()
            expected = trained(limit, y, length, start=start)
            for _ in range(steps):
                gradients = torch.autograd.grad((net(x) - y).square().sum() / 2, list(net.parameters()))
                with torch.no_grad():
                    for leaf, gradient in zip(net.parameters(), gradients, strict=True):
                        leaf -= length / steps * gradient
            far.append(float((net(x).detach() - expected).norm() / (expected - start).norm()))
        what = {"part": "widths", "method": "ntk", "width": width, "depth": 2, "points": 24, "seeds": 10}
        yield what, {"kernel": float(np.sqrt(np.square(near).mean())), "trained": float(np.median(far))}


def arms(far: float, columns: int) -> dict[str, dict[str, Kernel]]:
    """Kernels by name and width, of points that are that far from each other."""
    return {
        "Gaussian": {f"{c}": RBF(far * c) for c in (0.25, 0.35, 0.5, 0.7, 1.0)},
        "Laplacian": {f"{c}": Laplacian(far * c * columns**0.5) for c in (0.5, 1.0, 2.0)},
        "NTK, depth 1": {"": NTK(1)},
        "NTK, depth 2": {"": NTK(2)},
        "NTK, depth 5": {"": NTK(5)},
        "NTK of erf, depth 2": {"": NTK(2, "erf")},
        "NNGP, depth 2": {"": NTK(2, kind="nngp")},
    }


def classes() -> Iterator[Found]:
    """Accuracies on pictures of clothes and digits, the same ridge regression behind every kernel."""
    for name, split in {"digits": digits, "Fashion-MNIST": clothes}.items():
        right: dict[str, list[float]] = {}
        spent: dict[str, float] = {}
        for seed in range(SPLITS):
            train, labels, test, answers = split(seed)
            far = float(np.median(np.linalg.norm(train[:300, None] - train[None, :300], axis=2)))
            for arm, kernels in arms(far, train.shape[1]).items():
                begun = time.process_time()
                width, said = classified(kernels.items(), train, labels, test)
                print(name, seed, arm, width, float((said == answers).mean()), flush=True)
                right.setdefault(arm, []).append(float((said == answers).mean()))
                spent[arm] = spent.get(arm, 0.0) + time.process_time() - begun
        for arm, each in right.items():
            behind = np.subtract(right["Gaussian"], each)
            what = {"part": "classes", "method": "ntk", "data": name, "arm": arm, "train": len(train)}
            found = {"accuracy": float(np.mean(each)), "behind": float(behind.mean()), "cpu_seconds": spent[arm]}
            found["se"] = float(behind.std(ddof=1) / SPLITS**0.5)
            yield what | {"test": len(test), "splits": SPLITS}, found


def memory() -> Iterator[Found]:
    """The tangent kernel of a network of a million parameters, without its Jacobian."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10))
    count = sum(p.numel() for p in net.parameters())
    x = torch.randn(2000, 784) / 28
    before, begun = peak_rss_bytes() or 0, time.process_time()
    k = empirical_ntk(net, x, tile=250)
    found = {"megabytes": ((peak_rss_bytes() or 0) - before) / 1e6, "cpu_seconds": time.process_time() - begun}
    what = {"part": "memory", "method": "ntk", "parameters": count, "points": len(x), "outputs": 10, "route": "layers"}
    jacobian = {"jacobian_megabytes": 4 * len(x) * 10 * count / 1e6, "trace": float(k.trace())}
    yield what, found | jacobian


PARTS: dict[str, Callable[[], Iterator[Found]]] = {"memory": memory, "widths": widths, "classes": classes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="all parts where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("kernels.tangent", options.json)
    for part in options.only or PARTS:
        for what, found in PARTS[part]():
            print(what, found, flush=True)
            rows.add(what, found)


if __name__ == "__main__":
    main()
