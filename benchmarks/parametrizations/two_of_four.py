"""Two of every four weights of a trained net go: bit by bit, straight through, or at once and trained on.

    python -m benchmarks.parametrizations.two_of_four --fashion DIR [--json FILE]

A perceptron 784-128-128-10 on Fashion-MNIST: 2 passes dense, then a pass of an arm, whose hidden matrices become 2:4
sparse; AdamW without decay at a rate of 0.003, then under a cosine. Of three rates, of `cast` of three pulls at the
smallest rate, one is picked for each arm by a seed that learns 50,000 pictures and is judged by the 10,000 others of
those to learn from; then 3 seeds. Differences are to the dense net that trains on, paired by seed. `at once` keeps the
largest and trains them alone; `cast` mixes its pull into the gradient, `cast, AdamS` into Adam's first moment, as
published.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import mlp, right, shuffled, train
from eckart.optim import AdamS

BATCH, PASSES, MORE = 128, 2, 1
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
    hidden = [p for name, p in model.named_parameters() if p.ndim > 1 and "head" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim < 2 or "head" in name]
    return AdamS([{"params": hidden}, {"params": rest, "rule": "adamw"}], lr=rate, total=steps, decay=pull)


class Runs:
    """Dense nets by seed, and what arms make of them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        self.starts: dict[int, nn.Module] = {}

    def trained(self, name: str, seed: int, rate: float, pull: float) -> nn.Module:
        """The net of a seed after a pass of an arm."""
        x, y = self.x, self.y
        if seed not in self.starts:
            self.starts[seed] = mlp(seed, (128, 128))
            train(self.starts[seed], shuffled(x, y, BATCH), int(PASSES * len(x)) // BATCH, seed, rate=3e-3)
        model, (method, told) = copy.deepcopy(self.starts[seed]), ARMS[name]
        if method == "cast-2-4" and "AdamS" not in name:
            told = {**told, "decay": pull}
        made = eckart.reparametrize(model, method, exclude=["head"], seed=seed, **told) if method else None
        steps = int(MORE * len(x)) // BATCH
        optimizer = adam_s(model, rate, pull, steps) if name == "cast, AdamS" else None
        train(model, shuffled(x, y, BATCH), steps, seed + 100, rate=rate, made=made, optimizer=optimizer)
        if made is not None:
            made.finish()
        return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (x, y), (others, labels) = fashion(options.fashion, "train"), fashion(options.fashion, "t10k")
    rows = Rows("parametrizations.two_of_four", options.json)
    tried, runs = Runs(x[:50_000], y[:50_000]), Runs(x, y)
    dense: list[float] = []
    for name, (method, _) in ARMS.items():
        what = {"arm": name, "method": method, "passes": PASSES, "more": MORE, "seeds": options.seeds}
        what["trials"] = len(RATES)
        row = rows.get(what)
        if row is None:
            picked = {
                each: float(right(tried.trained(name, 100, *each), x[50_000:], y[50_000:]).double().mean())
                for each in settings(name)
            }
            rate, pull = max(picked, key=lambda each: picked[each])
            scores = [
                float(right(runs.trained(name, seed, rate, pull), others, labels).double().mean())
                for seed in range(options.seeds)
            ]
            paired = [a - b for a, b in zip(scores, dense or scores, strict=True)]
            row = rows.add(
                what,
                {
                    "accuracy": statistics.mean(scores),
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
