"""Two of every four weights of a trained net go: bit by bit, straight through, or at once and trained on.

    python -m benchmarks.parametrizations.two_of_four --fashion DIR [--json FILE]

A perceptron 784-128-128-10 on Fashion-MNIST: 2 passes dense, then a pass of an arm, whose hidden matrices become 2:4
or 1:8 sparse; AdamW without decay at a rate of 0.003, then 0.001 under a cosine, 3 seeds. Differences are to the dense
net that trains on, paired by seed. `at once` keeps the largest and trains them alone.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from pathlib import Path
from typing import Any

import torch

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import mlp, right, shuffled, train

BATCH, PASSES, MORE = 128, 2, 1
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("", {}),
    "cast": ("cast-2-4", {}),
    "cast without scales": ("cast-2-4", {"scaling": False}),
    "at once": ("nm-gradient-flow", {"n": 2, "m": 4, "dense_until": 0.0, "mask_from": 0.0}),
    "straight-through": ("sr-ste", {"n": 2, "m": 4, "penalty": 0.0}),
    "sr-ste": ("sr-ste", {"n": 2, "m": 4}),
    "gradient flow": ("nm-gradient-flow", {"n": 2, "m": 4}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (x, y), (others, labels) = fashion(options.fashion, "train"), fashion(options.fashion, "t10k")
    rows = Rows("parametrizations.two_of_four", options.json)
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    for seed in range(options.seeds):
        start = mlp(seed, (128, 128))
        train(start, shuffled(x, y, BATCH), PASSES * len(x) // BATCH, seed, rate=3e-3)
        for name, (method, told) in ARMS.items():
            model = copy.deepcopy(start)
            made = eckart.reparametrize(model, method, exclude=["head"], seed=seed, **told) if method else None
            train(model, shuffled(x, y, BATCH), MORE * len(x) // BATCH, seed + 100, rate=1e-3, made=made)
            if made is not None:
                made.finish()
            found[name].append(float(right(model, others, labels).double().mean()))
            print(seed, name, found[name][-1], flush=True)
    for name, scores in found.items():
        paired = [a - b for a, b in zip(scores, found["dense"], strict=True)]
        rows.add(
            {"arm": name, "method": ARMS[name][0], "passes": PASSES, "more": MORE, "seeds": options.seeds},
            {
                "accuracy": statistics.mean(scores),
                "spread": statistics.stdev(scores),
                "change": statistics.mean(paired),
                "change_stderr": statistics.stdev(paired) / len(paired) ** 0.5,
            },
        )


if __name__ == "__main__":
    main()
