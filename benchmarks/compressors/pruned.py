"""Pruning of small nets, all matrices to one share, without training afterwards: accuracy beside the dense net.

    python -m benchmarks.compressors.pruned --fashion DIR --cache resnet.safetensors [--json FILE]

Two nets that this program trains on Fashion-MNIST: three linear layers (784, 256, 128, 10), for whose matrices an image
is one token, so that a sample of pairs is one of gradients as published; and the residual net of `convolution`, kept in
a file. Calibrated on 8192 and on 512 training images, judged on the 10,000 test images. Every matrix keeps the same
share of its entries. Seconds are of the processor, for all matrices; what serves all shares is done at the first.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.pictures import Output, Task, fashion, fashion_task
from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.statistics import statistics_for

PERCENT = (50, 30, 20, 10)


class Layers(nn.Module):
    """784, 256, 128, 10 with rectifiers between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(784, 256), nn.Linear(256, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Output:
        return Output(self.third(F.relu(self.second(F.relu(self.first(x))))))


def layers_task(directory: Path, seed: int, epochs: int = 2) -> Task:
    (x, y), (images, labels) = fashion(directory, "train"), fashion(directory, "t10k")
    x = x.flatten(1)
    torch.manual_seed(seed)
    model = Layers()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(x[index]).logits, y[index]).backward()
            optimizer.step()
    return Task("three layers", "Fashion-MNIST", model.eval(), list(x[:8192].split(256)), images.flatten(1), labels)


@torch.no_grad()
def accuracy(model: nn.Module, task: Task) -> tuple[float, float]:
    """In percent, and its standard error."""
    right = torch.cat([model(some).logits.argmax(1) for some in task.images.split(500)]) == task.labels
    mean = float(right.double().mean())
    return 100 * mean, 100 * (mean * (1 - mean) / len(right)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--cache", type=Path, default=Path("resnet.safetensors"), help="where the trained net is kept")
    parser.add_argument("--methods", nargs="+", default=["magnitude", "wanda", "sparsegpt", "mfac"])
    parser.add_argument("--seeds", type=int, default=3, help="of the layers")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("compressors.pruned", options.json)
    tasks = [(seed, layers_task(options.fashion, seed)) for seed in range(options.seeds)]
    for seed, task in [*tasks, (0, fashion_task(options.fashion, options.cache, 2, 0))]:
        setting = {"model": task.name, "data": task.data, "images": sum(map(len, task.calibration)), "seed": seed}
        sites = find_sites(task.model)
        needs = sorted({need for name in options.methods for need in METHODS[name].needs}, key=lambda need: need.value)
        known, _ = statistics_for(task.model, {s.name: s.module for s in sites}, needs, task.calibration, seed=seed)
        value, error = accuracy(task.model, task)
        rows.add({**setting, "method": "dense", "percent": 100}, {"accuracy": value, "stderr": error})
        print(task.name, seed, "dense", value, flush=True)
        for name in options.methods:
            clock = time.process_time()
            families = {site.name: METHODS[name].entry(site.weight, known[site.name]) for site in sites}
            for percent in PERCENT:
                small = copy.deepcopy(task.model)
                for site in find_sites(small):
                    if percent in families[site.name].sizes:
                        replace(small, site, families[site.name].build(percent).structure)
                spent, clock = time.process_time() - clock, time.process_time()
                value, error = accuracy(small, task)
                found = {"accuracy": value, "stderr": error, "cpu_seconds": spent}
                rows.add({**setting, "method": name, "percent": percent}, found)
                print(task.name, seed, name, percent, found, flush=True)


if __name__ == "__main__":
    main()
