"""Rates and decays of a narrow net taken to wider ones: which rate is best there, and how large matrices become.

    python -m benchmarks.optim.width --fashion DIR [--json FILE]

A perceptron 784-d-d-d-10 with RMS norms on Fashion-MNIST, whose two hidden matrices grow with d both ways; AdamW
at a rate that stays, 1200 steps of 32 pictures, a decay of 1 at width 32, so that at a rate of 0.01 a steady state is
reached after some hundreds of steps. `scaled` is `weight-decay-scaling`: of hidden matrices the rate times 32/d, the
decay times sqrt(d/32). `rate alone` leaves the decay, `as they are` both; decays of all else are zero throughout. A row
a rule, width and rate: the share of the 10,000 others that is wrong, and the largest singular value of the hidden
matrices, the mean of both, beside that at width 32 and the same rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import Batches, right, shuffled
from eckart.optim.weight_decay_scaling import at_width, sublayer_gains

BASE, WIDTHS = 32, (64, 256)
RATES = (3e-3, 1e-2, 3e-2)
DECAY, STEPS, BATCH, HIDDEN = 1.0, 1200, 32, 2
RULES = ("scaled", "rate alone", "as they are")


def net(seed: int, width: int) -> nn.Sequential:
    """The perceptron."""
    torch.manual_seed(seed)
    inner = [x for _ in range(HIDDEN) for x in (nn.RMSNorm(width), nn.Linear(width, width, bias=False), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), *inner, nn.Linear(width, 10))


def parts(model: nn.Module, rule: str, width: int, rate: float) -> list[dict[str, Any]]:
    """Groups for AdamW."""
    hidden = [p for p in model.parameters() if p.shape == (width, width)]
    rest = [p for p in model.parameters() if p.shape != (width, width)]
    groups: Sequence[Mapping[str, Any]] = [
        {"params": hidden, "lr": rate, "weight_decay": DECAY},
        {"params": rest, "lr": min(rate, 1e-2), "rule": "adamw"},
    ]
    scaled = at_width(groups, base=BASE, width=BASE if rule == "as they are" else width)
    if rule == "rate alone":
        scaled[0]["weight_decay"] = DECAY
    return scaled


def run(batches: Batches, rule: str, width: int, rate: float, seed: int) -> nn.Module:
    """A trained net."""
    model = net(seed, width)
    optimizer = torch.optim.AdamW(parts(model, rule, width, rate))
    for _, (x, y) in zip(range(STEPS), batches(seed), strict=False):
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (x, y), (others, labels) = fashion(options.fashion, "train"), fashion(options.fashion, "t10k")
    rows, batches, first = Rows("optim.width", options.json), shuffled(x, y, BATCH), {}
    for width, rule in [(BASE, "scaled"), *((width, rule) for width in WIDTHS for rule in RULES)]:
        for rate in RATES:
            what = {"rule": rule, "width": width, "rate": rate, "seeds": options.seeds, "steps": STEPS}
            row = rows.get(what)
            if row is None:
                clock, wrong, gains = time.process_time(), [], []
                for seed in range(options.seeds):
                    model = run(batches, rule, width, rate, seed)
                    wrong.append(1 - float(right(model, others, labels).double().mean()))
                    hidden = [g for name, g in sublayer_gains(model).items() if name not in ("1.weight", "9.weight")]
                    gains.append(statistics.mean(hidden))
                gain = statistics.mean(gains)
                row = rows.add(
                    what,
                    {
                        "wrong": statistics.mean(wrong),
                        "spread": statistics.stdev(wrong),
                        "gain": gain,
                        "gain_ratio": gain / first.get(rate, gain),
                        "cpu_seconds": (time.process_time() - clock) / options.seeds,
                    },
                )
            if width == BASE:
                first[rate] = row.found["gain"]
            print(what, row.found, flush=True)


if __name__ == "__main__":
    main()
