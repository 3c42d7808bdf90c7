"""Random features as an adapter beside LoRA and a bottleneck, at equal numbers that train.

    OMP_NUM_THREADS=1 python -m benchmarks.layers.feature_adapters --json benchmarks/results/layers.jsonl

A network of two hidden layers of 256 ReLU learns Fashion-MNIST (the Debian package dataset-fashion-mnist) upright
and is then frozen; what trains is added to it, zero at the start, on 2000 pictures that are turned by a right angle,
or negative: LoRA at both hidden layers, a bottleneck behind each (h + B relu(A h)), or random features behind each
(h + C phi(h), phi drawn once, the paper's adapter), and the head's bias in all. Accuracy at 2000 test pictures so
changed, 12 passes of Adam, the better of two rates by 500 pictures kept out, means of two draws.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from eckart.errors import Refused
from eckart.layers.scalable_nn_kernels import RandomFeatureLinear

Found = tuple[dict[str, Any], dict[str, Any]]
FASHION = Path("/usr/share/datasets/fashion-mnist")
HIDDEN, PASSES, SEEDS = 256, 12, 2
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "turned": lambda x: x.transpose(-1, -2).flip(-1),
    "negative": lambda x: 1 - x,
}


class Beside(nn.Module):
    """h + f(h), or the frozen map and a low-rank one of the same input."""

    def __init__(self, first: nn.Module, second: nn.Module, of_input: bool) -> None:
        super().__init__()
        self.first, self.second, self.of_input = first, second, of_input

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.first(x)
        return h + self.second(x if self.of_input else h)


def low_rank(inputs: int, rank: int) -> nn.Module:
    made = nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, HIDDEN, bias=False))
    nn.init.zeros_(made[1].weight)
    return made


def bottleneck(rank: int) -> nn.Module:
    made = nn.Sequential(nn.Linear(HIDDEN, rank), nn.ReLU(), nn.Linear(rank, HIDDEN))
    nn.init.zeros_(made[2].weight)
    nn.init.zeros_(made[2].bias)
    return made


def features(count: int, kind: Any, seed: int) -> nn.Module:
    made = RandomFeatureLinear(HIDDEN, HIDDEN, count, kind=kind, generator=torch.Generator().manual_seed(seed))
    made.scale.fill_(HIDDEN**-0.5)
    return made


def adapted(base: nn.Sequential, arm: str, numbers: int, seed: int) -> nn.Sequential:
    """The network with an adapter of about so many numbers at each hidden layer, and nothing else that trains."""
    net = copy.deepcopy(base).requires_grad_(False)
    for place in (0, 2):
        inputs = net[place].in_features
        if arm == "LoRA":
            net[place] = Beside(net[place], low_rank(inputs, max(1, numbers // (inputs + HIDDEN))), True)
            continue
        if arm == "bottleneck":
            second = bottleneck(max(1, (numbers - HIDDEN) // (2 * HIDDEN + 1)))
        else:
            kind = "exponential" if arm.endswith("exponential") else "relu"
            second = features((numbers - HIDDEN) // HIDDEN // 2 * 2, kind, seed)
        net[place + 1] = Beside(net[place + 1], second, False)
    net[4].bias.requires_grad_(True)
    return net


def learned(net: nn.Sequential, x: Tensor, y: Tensor, rate: float, passes: int = PASSES) -> nn.Sequential:
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate)
    for _ in range(passes):
        for part in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
    return net


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((net(x).argmax(1) == y).float().mean())


def measured() -> Iterator[Found]:
    x, y = (t[:12500] for t in fashion(FASHION, "train"))
    new, answers = (t[:2000] for t in fashion(FASHION, "t10k"))
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    learned(base, x[2500:].flatten(1), y[2500:], 1e-3, 4)
    for name, change in CHANGES.items():
        seen, kept = change(x[:2000]).flatten(1), change(x[2000:2500]).flatten(1)
        asked = change(new).flatten(1)
        what: dict[str, Any] = {"part": "adapters", "method": "scalable-nn-kernels", "change": name}
        yield {**what, "arm": "frozen", "numbers": 0}, {"accuracy": accuracy(base, asked, answers), "numbers": 0}
        for numbers in (1300, 20800):
            for arm in ("LoRA", "bottleneck", "random features, relu", "random features, exponential"):
                begun, scores, counted = time.process_time(), [], 0
                for seed in range(SEEDS):
                    best = (-1.0, 0.0)
                    for rate in (1e-3, 1e-2):
                        torch.manual_seed(seed)
                        try:
                            net = learned(adapted(base, arm, numbers, seed), seen, y[:2000], rate)
                        except Refused as why:
                            print(arm, numbers, rate, why)
                            continue
                        counted = sum(p.numel() for p in net.parameters() if p.requires_grad)
                        best = max(best, (accuracy(net, kept, y[2000:2500]), accuracy(net, asked, answers)))
                    if best[0] >= 0:
                        scores.append(best[1])
                if not scores:
                    continue
                found = {"accuracy": float(np.mean(scores)), "apart": max(scores) - min(scores), "numbers": counted}
                seconds = (time.process_time() - begun) / SEEDS / 2
                yield {**what, "arm": arm, "numbers": numbers}, found | {"seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Rows("layers.feature_adapters", parser.parse_args().json)
    for what, found in measured():
        print(what, found, flush=True)
        rows.add(what, found)


if __name__ == "__main__":
    main()
