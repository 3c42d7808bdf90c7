"""Zeros in runs: turbo-vbi with choices in a chain and with independent ones, beside magnitude pruning.

    python -m benchmarks.parametrizations.runs_of_zeros --fashion DIR [--json FILE]

A perceptron 784-128-64-10 on Fashion-MNIST, 4 passes over 60,000 pictures in batches of 128, Adam at 1e-3 under a
cosine rate. A chain, and independent choices set so that as many weights go; beside each, magnitude pruning of the
dense net to as many weights of every matrix, at the same step, and as many steps after it. A run is zeros that are
neighbours in a row of a matrix. Accuracy on the 10,000 others; differences are paired by seed. Every net has a row, so
that a program that was interrupted goes on; `--most` ends one after so many nets.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Row, Rows, add_option
from eckart.parametrizations._pruning import least

PASSES, BATCH, RATE = 4, 128, 1e-3
ZERO_FROM = 0.7
SETTING = {"passes": PASSES, "batch": BATCH, "rate": RATE}
ARMS: dict[str, dict[str, float]] = {
    "chain, 10 % active": {"share": 0.1, "link": 0.8, "spread": 4.0},
    "independent, 30 % active": {"share": 0.3, "link": 0.0, "spread": 1.0},
}
Pictures = tuple[Tensor, Tensor]


class Magnitude:
    """Zeros at the smallest weights of every matrix from a step on."""

    def __init__(self, weights: dict[str, nn.Parameter], gone: dict[str, int], start: int) -> None:
        self.weights, self.gone, self.start, self.done = weights, gone, start, 0
        self.where: dict[str, Tensor] = {}

    def before_step(self) -> None: ...

    def after_backward(self) -> None: ...

    @torch.no_grad()
    def after_step(self) -> None:
        self.done += 1
        for name, weight in self.weights.items():
            if self.done == self.start and name in self.gone:
                self.where[name] = least(weight, self.gone[name])
            if name in self.where:
                weight.masked_fill_(self.where[name], 0)


def perceptron(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def steps_of(pictures: Pictures) -> int:
    return PASSES * (len(pictures[0]) // BATCH)


def trained(model: nn.Module, hooks: Any, optimizer: torch.optim.Optimizer, pictures: Pictures, seed: int) -> float:
    """Trains to the end; returns processor seconds."""
    x, y = pictures
    steps, clock = steps_of(pictures), time.process_time()
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(PASSES):
        for batch in torch.randperm(len(x), generator=draw)[: len(x) // BATCH * BATCH].split(BATCH):
            hooks.before_step()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            hooks.after_backward()
            optimizer.step()
            hooks.after_step()
            optimizer.zero_grad()
            rates.step()
    return time.process_time() - clock


@torch.no_grad()
def accuracy(model: nn.Module, pictures: Pictures) -> float:
    x, y = pictures
    return float((model(x).argmax(1) == y).double().mean())


def runs(weights: list[Tensor]) -> tuple[float, float]:
    """The share of zeros, and the mean length of their runs along rows."""
    zeros = sum(int((w == 0).sum()) for w in weights)
    begun = sum(int((F.pad(w == 0, (1, 0)).int().diff(dim=1) == 1).sum()) for w in weights)
    return zeros / sum(w.numel() for w in weights), zeros / max(1, begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=-1, help="nets that are trained now; all by default")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("parametrizations.runs_of_zeros", options.json)
    learn, judge = (fashion(options.fashion, part) for part in ("train", "t10k"))
    steps = steps_of(learn)
    left = options.most

    def net(method: str, arm: str, seed: int) -> Row | None:
        """The row of one net, None where there have been enough."""
        nonlocal left
        what = {"part": "a net", "method": method, "arm": arm, "seed": seed, **SETTING}
        if (known := rows.get(what)) is not None:
            return known
        beside = net("turbo-vbi", arm, seed) if method == "magnitude" else None
        if left == 0 or (method == "magnitude" and beside is None):
            return None
        left -= 1
        model = perceptron(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0)
        weights = {str(n): m.weight for n, m in enumerate(model) if isinstance(m, nn.Linear)}
        hooks: Any = Magnitude(weights, {} if beside is None else beside.found["gone"], round(ZERO_FROM * steps))
        if method == "turbo-vbi":
            made = eckart.reparametrize(
                model, method, seed=seed, examples=len(learn[0]), zero_from=ZERO_FROM, **ARMS[arm]
            )
            optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0)
            hooks = made.schedule(optimizer, steps)
            weights = {name: each.weight for name, each in made.structures.items()}
        seconds = trained(model, hooks, optimizer, learn, seed)
        share, length = runs([w.detach() for w in weights.values()])
        found = {"accuracy": accuracy(model, judge), "zeros": share, "run": length, "cpu_seconds": seconds}
        print(method, arm, seed, {name: round(value, 4) for name, value in found.items()}, flush=True)
        return rows.add(what, {**found, "gone": {name: int((w == 0).sum()) for name, w in weights.items()}})

    seeds = range(options.seeds)
    pairs = [("dense", ""), *((method, arm) for arm in ARMS for method in ("turbo-vbi", "magnitude"))]
    nets = {pair: [net(*pair, seed) for seed in seeds] for pair in pairs}
    if not all(all(each) for each in nets.values()):
        return
    found = {pair: [row.found for row in each if row is not None] for pair, each in nets.items()}
    for (method, arm), each in found.items():
        write(rows, method, arm, each, found["magnitude", arm] if method == "turbo-vbi" else found["dense", ""])
    chain, independent = (found["turbo-vbi", arm] for arm in ARMS)
    write(rows, "turbo-vbi", "the chain to independent choices", chain, independent, "of two")


def write(
    rows: Rows, method: str, arm: str, each: list[Mapping[str, Any]], other: list[Mapping[str, Any]], part: str = "all"
) -> None:
    """Means over seeds, and the paired difference: of an arm to magnitude pruning, of that to the dense net."""
    change = [a["accuracy"] - b["accuracy"] for a, b in zip(each, other, strict=True)]
    longer = [a["run"] / b["run"] for a, b in zip(each, other, strict=True)] if method == "turbo-vbi" else []
    rows.add(
        {"part": part, "method": method, "arm": arm, "seeds": len(each), **SETTING},
        {
            **{name: statistics.mean(one[name] for one in each) for name in ("accuracy", "zeros", "run")},
            "spread": statistics.stdev(one["accuracy"] for one in each),
            "change": statistics.mean(change),
            "change_stderr": statistics.stdev(change) / len(each) ** 0.5,
            **({"longer": statistics.mean(longer)} if longer else {}),
            "cpu_seconds": min(one["cpu_seconds"] for one in each),
        },
    )


if __name__ == "__main__":
    main()
