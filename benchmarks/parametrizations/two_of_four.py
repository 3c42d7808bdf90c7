"""Two of every four weights of a trained net go: bit by bit, straight through, or at once and trained on.

    python -m benchmarks.parametrizations.two_of_four clothes --fashion DIR [--json FILE]
    python -m benchmarks.parametrizations.two_of_four text [--json FILE]

clothes: a perceptron 784-128-128-10 on Fashion-MNIST, 2 passes dense; text: a Llama of 2 layers of width 128 on
articles of Wikipedia, 400 steps of 1024 tokens dense. Then half as many steps of an arm, whose hidden matrices become
2:4 sparse; AdamW without decay under a cosine. Of three rates, of `cast` of three pulls at the smallest rate, one is
picked for each arm by a seed that is judged by others of the data to learn from; then 3 seeds. Differences are to the
dense net that trains on, paired by seed. `at once` keeps the largest and trains them alone; `cast` mixes its pull into
the gradient, `cast, AdamS` into Adam's first moment, as published.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.arms import HIDDEN, Task, clothes, text
from benchmarks.parametrizations.training import Batches, train
from eckart.optim import AdamS

STEPS = 400
"""Of the dense Llama."""
FIRST = {"clothes": 3e-3, "text": 1e-2}
"""The rate of the dense net."""
RATES = (1e-3, 3e-3, 1e-2)
PULLS = (1e-3, 1e-2, 1e-1)
"""`decay` of cast; its default is for runs of thousands of steps and moves nothing in one of 468."""
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("", {}),
    "cast": ("cast-2-4", {}),
    "cast, AdamS": ("cast-2-4", {"pull": False}),
    "cast without scales": ("cast-2-4", {"scaling": False}),
    "at once": ("nm-gradient-flow", {"n": 2, "m": 4, "dense_until": 0.0, "mask_from": 0.0}),
    "straight-through": ("sr-ste", {"n": 2, "m": 4, "penalty": 0.0}),
    "sr-ste": ("sr-ste", {"n": 2, "m": 4}),
    "gradient flow": ("nm-gradient-flow", {"n": 2, "m": 4}),
}


def settings(name: str) -> list[tuple[float, float]]:
    """Rates and pulls that are tried."""
    return [(RATES[0], pull) for pull in PULLS] if ARMS[name][0] == "cast-2-4" else [(rate, 0.0) for rate in RATES]


def adam_s(model: nn.Module, rate: float, pull: float, steps: int) -> torch.optim.Optimizer:
    """The authors' optimizer for the hidden matrices, AdamW for the rest."""
    hidden = {name for name, p in model.named_parameters() if p.ndim > 1 and "head" not in name and "embed" not in name}
    split = ([p for name, p in model.named_parameters() if (name in hidden) is inside] for inside in (True, False))
    return AdamS([{"params": next(split)}, {"params": next(split), "rule": "adamw"}], lr=rate, total=steps, decay=pull)


class Runs:
    """Dense nets by seed, and what arms make of them."""

    def __init__(self, task: Task, batches: Batches, first: float) -> None:
        self.task, self.batches, self.first = task, batches, first
        self.starts: dict[int, nn.Module] = {}

    def trained(self, name: str, seed: int, rate: float, pull: float) -> nn.Module:
        """The net of a seed after an arm."""
        task = self.task
        if seed not in self.starts:
            self.starts[seed] = task.start(seed, HIDDEN)
            train(self.starts[seed], self.batches, task.steps, seed, loss=task.loss, rate=self.first)
        model, (method, told) = copy.deepcopy(self.starts[seed]), ARMS[name]
        if method == "cast-2-4" and "AdamS" not in name:
            told = {**told, "decay": pull}
        made = eckart.reparametrize(model, method, exclude=task.exclude, seed=seed, **told) if method else None
        steps = task.steps // 2
        optimizer = adam_s(model, rate, pull, steps) if name == "cast, AdamS" else None
        train(model, self.batches, steps, seed + 100, loss=task.loss, rate=rate, made=made, optimizer=optimizer)
        if made is not None:
            made.finish()
        return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*FIRST])
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = clothes(options.fashion) if options.part == "clothes" else replace(text(), steps=STEPS)
    rows, first = Rows("parametrizations.two_of_four", options.json), FIRST[options.part]
    tried, runs = Runs(task, task.tried, first), Runs(task, task.batches, first)
    dense: list[float] = []
    for name, (method, _) in ARMS.items():
        what = {"part": options.part, "arm": name, "method": method, "steps": task.steps, "seeds": options.seeds}
        what["trials"] = len(RATES)
        row = rows.get(what)
        if row is None:
            picked = {each: task.pick(tried.trained(name, 100, *each)) for each in settings(name)}
            rate, pull = max(picked, key=lambda each: picked[each] if math.isfinite(picked[each]) else -math.inf)
            scores = [task.judge(runs.trained(name, seed, rate, pull)) for seed in range(options.seeds)]
            paired = [a - b for a, b in zip(scores, dense or scores, strict=True)]
            row = rows.add(
                what,
                {
                    task.unit: statistics.mean(scores),
                    "spread": statistics.stdev(scores),
                    "change": statistics.mean(paired),
                    "change_stderr": statistics.stdev(paired) / len(paired) ** 0.5,
                    "rate": rate,
                    "pull": pull or None,
                    "scores": scores,
                },
            )
            print(picked)
        dense = dense or row.found["scores"]
        print(name, row.found, flush=True)


if __name__ == "__main__":
    main()
