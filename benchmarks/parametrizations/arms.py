"""Structures that train from the start, beside each other at equal bytes: pictures of clothes.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb DIR
    python -m benchmarks.parametrizations.arms --fashion DIR/usr/share/datasets/fashion-mnist [--json FILE]

A perceptron 784-128-128-10, whose last layer stays dense; AdamW without decay, batches of 128, a cosine rate. Every arm
has the same three rates, tried for half a pass over 50,000 pictures and judged on the 10,000 others of those to learn
from; with the best it has 2 passes over all 60,000, for some seeds, and is judged on the 10,000 to judge. What is
stored of the two hidden matrices takes at most a fifth of their bytes (see `bytes`), but for `sst` and `sparse-ift`,
which are no smaller; `narrow` is a dense net of that many. Differences are to `dense`, paired by seed.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import mlp, right, shuffled, train

RATES = (3e-3, 1e-2, 3e-2)
BATCH, TRIED, PASSES = 128, 0.5, 2
KEEP = 0.2
DENSITY = 0.16
"""Of masked entries: 4 bytes each and a bit a place make less than a fifth of the bytes."""
HIDDEN = 128
Arm = tuple[str, dict[str, Any]]
ARMS: dict[str, Arm] = {
    "dense": ("", {}),
    "dense, narrow": ("", {"hidden": 28}),
    "low rank": ("low-rank", {"keep": KEEP, "of": "bytes"}),
    "low rank, drawn": ("low-rank", {"keep": KEEP, "of": "bytes", "projected": False}),
    "sltrain": ("sltrain", {"keep": KEEP, "of": "bytes", "delta": 0.03}),
    "sltrain, alone": ("sltrain", {"rank": 0, "delta": 0.13}),
    "kronecker": ("kronecker", {"keep": KEEP, "of": "bytes"}),
    "block-diagonal": ("block-diagonal", {"keep": KEEP, "of": "bytes"}),
    "maestro": ("maestro", {"keep": KEEP, "of": "bytes"}),
    "sst, rank 16": ("sst", {"rank": 16}),
    "rigl, erk": ("rigl", {"keep": DENSITY}),
    "set, erk": ("set", {"keep": DENSITY}),
    "places that stay": ("set", {"keep": DENSITY, "until": 1e-6}),
    "sparse-ift, factorized": ("sparse-ift", {"form": "factorized"}),
    "sparse-ift, doped": ("sparse-ift", {"form": "doped"}),
    "magnitude": ("iss-p", {"keep": DENSITY, "shrink": 1.0, "penalty_from": 0.7}),
    "1:8, decayed": ("nm-gradient-flow", {}),
    "1:8, straight-through": ("nm-gradient-flow", {"backward": "straight-through"}),
    "1:8, by stages": ("nm-gradient-flow", {"flow": "sdgf-stepwise"}),
    "1:8, sr-ste": ("sr-ste", {}),
    "1:16, decayed": ("nm-gradient-flow", {"m": 16}),
    "1:16, straight-through": ("nm-gradient-flow", {"m": 16, "backward": "straight-through"}),
}


def run(arm: Arm, x: Tensor, y: Tensor, steps: int, seed: int, rate: float) -> tuple[nn.Module, dict[str, float]]:
    """The trained net; share of the hidden matrices' bytes and multiply-adds, numbers that train, and seconds."""
    method, options = arm
    model = mlp(seed, (options["hidden"],) * 2 if not method and options else (HIDDEN, HIDDEN))
    made = eckart.reparametrize(model, method, exclude=["head"], seed=seed, **options) if method else None
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seconds = train(model, shuffled(x, y, BATCH), steps, seed, rate=rate, made=made)
    if made is None:
        hidden = options.get("hidden", HIDDEN)
        size = macs = 784 * hidden + hidden**2
        bytes_ = 4 * size
    else:
        made.finish()
        bytes_ = sum(s.cost().bytes for s in made.structures.values())
        macs = sum(s.cost().macs for s in made.structures.values())
    dense = 784 * HIDDEN + HIDDEN**2
    return model, {"bytes": bytes_ / (4 * dense), "macs": macs / dense, "trained": trained, "cpu_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), help="some of the arms; dense is among them")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (x, y), (others, labels) = fashion(options.fashion, "train"), fashion(options.fashion, "t10k")
    rows = Rows("parametrizations.arms", options.json)
    beside: list[float] = []
    for name in ["dense", *(arm for arm in options.arms if arm != "dense")]:
        what = {"part": "clothes", "arm": name, "method": ARMS[name][0], "passes": PASSES, "seeds": options.seeds}
        if (row := rows.get(what)) is not None:
            beside = row.found["scores"] if name == "dense" else beside
            continue
        tried = {}
        for rate in RATES:
            model, _ = run(ARMS[name], x[:50_000], y[:50_000], int(TRIED * 50_000) // BATCH, 100, rate)
            tried[rate] = float(right(model, x[50_000:], y[50_000:]).double().mean())
        rate = max(tried, key=lambda each: tried[each])
        scores, told = [], []
        for seed in range(options.seeds):
            model, facts = run(ARMS[name], x, y, PASSES * len(x) // BATCH, seed, rate)
            scores.append(float(right(model, others, labels).double().mean()))
            told.append(facts)
        beside = scores if name == "dense" else beside
        paired = [a - b for a, b in zip(scores, beside, strict=True)]
        print(name, rate, tried, scores, told[0], flush=True)
        rows.add(
            what,
            {
                "accuracy": statistics.mean(scores),
                "spread": statistics.stdev(scores),
                "change": statistics.mean(paired),
                "change_stderr": statistics.stdev(paired) / len(paired) ** 0.5,
                "rate": rate,
                "scores": scores,
                **{key: told[0][key] for key in ("bytes", "macs", "trained")},
                "cpu_seconds": min(facts["cpu_seconds"] for facts in told),
            },
        )


if __name__ == "__main__":
    main()
