"""A network over many shapes that gives a spectral basis at once, beside solving for it on each.

    OMP_NUM_THREADS=1 python -m benchmarks.kernels.eigenbasis_network --json benchmarks/results/kernels.jsonl

Shapes are spheres whose radius is a random polynomial of degree three, 400 points each. The network has four layers
of 64, each of what a point has, the mean over its 20 neighbours and the mean over all; its 8 outputs are made
orthonormal, and learn by the paper's loss: the residuals of 64 smoothed probes on the first j of them, summed over
j. After 1000 steps on 1 to 100 shapes, one a step, it is asked for 20 new ones: the share of the best 8 functions
for such probes that lies in its span, and the same of the smooth graph's eigenvectors. Seconds are of the processor,
one shape, neighbours included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from benchmarks.kernels.eigenbases import graph
from eckart.kernels.learned_eigenbasis import ProbeEigenbasis, averaging

POINTS, COUNT, WIDTH, STEPS, NEW = 400, 8, 64, 1000, 20
SMOOTHINGS, PROBES = 10, 64
Found = tuple[dict[str, Any], dict[str, Any]]


def shape(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((POINTS, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    powers = [(a, b, c) for a in range(4) for b in range(4 - a) for c in range(4 - a - b) if a + b + c]
    radius = sum(rng.normal(0, 0.15) * np.prod(x ** np.array(p), axis=1) for p in powers)
    found: np.ndarray = x * np.exp(radius)[:, None]
    return found


def means(x: np.ndarray) -> sparse.csr_array:
    return averaging(x, x, 20, None)[0]


class Network(nn.Module):
    """Points, means over neighbours and over all -> columns that are orthonormal."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(3 * WIDTH, WIDTH) for _ in range(4))
        self.last = nn.Linear(WIDTH, COUNT)

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        h = self.first(x)
        for layer in self.layers:
            h = h + nn.functional.gelu(layer(torch.cat([h, mean @ h, h.mean(0).expand_as(h)], 1)))
        found: Tensor = torch.linalg.qr(self.last(h))[0]
        return found


@cache
def known(seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    x = shape(seed)
    matrix = means(x)
    return torch.from_numpy(x).float(), torch.from_numpy(matrix.toarray()).float(), x


def loss(basis: Tensor, probes: Tensor) -> Tensor:
    """The mean over j of what is left of the probes on the first j columns, by all of them."""
    held = (basis.T @ probes).square().sum(1).cumsum(0)
    return 1 - held.mean() / probes.square().sum()


def trained(shapes: int) -> Network:
    torch.manual_seed(0)
    net = Network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    for step in range(STEPS):
        x, mean, _ = known(1000 + step % shapes)
        probes = torch.randn(POINTS, PROBES)
        for _ in range(SMOOTHINGS):
            probes = mean @ probes
        optimizer.zero_grad()
        loss(net(x, mean), probes).backward()
        optimizer.step()
        rate.step()
    return net


def share(basis: np.ndarray, best: np.ndarray) -> float:
    return float(np.square(np.linalg.qr(basis)[0].T @ np.linalg.qr(best)[0]).sum()) / COUNT


def measured() -> Iterator[Found]:
    what = {"part": "shapes", "method": "learned-eigenbasis", "points": POINTS, "components": COUNT}
    x = [shape(seed) for seed in range(NEW)]
    best = [ProbeEigenbasis(COUNT, n_probes=None, steps=SMOOTHINGS, random_state=0).fit(each).components_ for each in x]
    arms: dict[str, Any] = {
        "the limit of many probes": lambda each: (
            ProbeEigenbasis(COUNT, n_probes=None, steps=SMOOTHINGS, random_state=0).fit(each).components_
        ),
        "500 probes": lambda each: (
            ProbeEigenbasis(COUNT, n_probes=500, steps=SMOOTHINGS, random_state=0).fit(each).components_
        ),
        "eigenvectors of the graph of neighbours": lambda each: graph(each)[:, -COUNT:],
    }
    for arm, basis in arms.items():
        begun = time.process_time()
        made = [basis(each) for each in x]
        seconds = (time.process_time() - begun) / NEW
        yield (
            {**what, "arm": arm},
            {
                "share": float(np.median([share(a, b) for a, b in zip(made, best, strict=True)])),
                "cpu_seconds": seconds,
            },
        )
    for shapes in (1, 10, 100):
        begun = time.process_time()
        net = trained(shapes)
        training, begun = time.process_time() - begun, time.process_time()
        with torch.no_grad():
            made = []
            for each in x:
                rough = means(each)
                parts = [
                    torch.from_numpy(part) for part in (rough.indptr, rough.indices, rough.data.astype(np.float32))
                ]
                mean = torch.sparse_csr_tensor(parts[0], parts[1], parts[2], rough.shape)
                made.append(net(torch.from_numpy(each).float(), mean).double().numpy())
            seconds = (time.process_time() - begun) / NEW
            own = net(*known(1000)[:2]).double().numpy()
        there = ProbeEigenbasis(COUNT, n_probes=None, steps=SMOOTHINGS, random_state=0).fit(known(1000)[2]).components_
        yield (
            {**what, "arm": f"a network, {shapes} shapes"},
            {
                "share": float(np.median([share(a, b) for a, b in zip(made, best, strict=True)])),
                "of a shape it learned from": share(own, there),
                "cpu_seconds": seconds,
                "training": training,
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Rows("kernels.eigenbasis_network", parser.parse_args().json)
    for what, found in measured():
        print(what, found, flush=True)
        rows.add(what, found)


if __name__ == "__main__":
    main()
