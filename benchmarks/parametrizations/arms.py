"""Structures that train from the start, beside each other at equal bytes: pictures of clothes, and text.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb DIR
    python -m benchmarks.parametrizations.arms clothes --fashion DIR/usr/share/datasets/fashion-mnist [--json FILE]
    python -m benchmarks.parametrizations.arms text [--json FILE]

clothes: a perceptron 784-128-128-10, whose last layer stays dense; batches of 128, 2 passes over 60,000 pictures; the
share of the 10,000 others that is classified rightly. text: a Llama of 2 layers of width 128 on articles of Wikipedia
and 2048 tokens of a byte-level BPE, whose embedding, which is also the head, stays dense; 200 steps of 1024 tokens; the
loss on held-out articles.
AdamW without decay, a cosine rate. Every arm has the same three rates, tried for a quarter of the steps (of text for
half) and judged by others of the data to learn from; with the best it has all steps, for some seeds. `equal seconds`
(--seconds) are as many steps as take the dense net's processor seconds, four times as many at most, by what 40 steps of
each take, the least of five turns. What is stored of the hidden matrices takes at most a fifth of their bytes (see
`bytes`), but for `sst` and `sparse-ift`, which are no smaller; `narrow` is a dense net of that many. `sparse-ift, wide`
is a net of twice the width by `rigl`, of as many multiply-adds as the dense one. Differences are to `dense`, paired by
seed.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Row, Rows, add_option
from benchmarks.parametrizations.training import Batches, Loss, mlp, right, shuffled, train

RATES = (3e-3, 1e-2, 3e-2)
BATCH, PASSES = 128, 2
KEEP = 0.2
DENSITY = 0.16
"""Of masked entries: 4 bytes each and a bit a place make less than a fifth of the bytes."""
HIDDEN = 128
TURNS, FEW = 5, 40
"""Times that steps of an arm are measured, and how many: the least of their means is what one takes."""
WIDE = (784 * HIDDEN + HIDDEN**2) / (784 * 2 * HIDDEN + 4 * HIDDEN**2)
"""Of the entries of a net of twice the width, for as many multiply-adds."""
Arm = tuple[str, dict[str, Any]]
ARMS: dict[str, Arm] = {
    "dense": ("", {}),
    "dense, narrow": ("", {"hidden": 28}),
    "low rank": ("low-rank", {"keep": KEEP, "of": "bytes"}),
    "low rank, drawn": ("low-rank", {"keep": KEEP, "of": "bytes", "projected": False}),
    "low rank, half of it by a gate": ("low-rank", {"keep": KEEP, "of": "bytes", "active": 0.5}),
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
    "sparse-ift, parallel": ("sparse-ift", {"form": "parallel"}),
    "sparse-ift, wide": ("rigl", {"hidden": 2 * HIDDEN, "keep": WIDE}),
    "magnitude": ("iss-p", {"keep": DENSITY, "shrink": 1.0, "penalty_from": 0.7}),
    "1:8, decayed": ("nm-gradient-flow", {}),
    "1:8, straight-through": ("nm-gradient-flow", {"backward": "straight-through"}),
    "1:8, by stages": ("nm-gradient-flow", {"flow": "sdgf-stepwise"}),
    "1:8, sr-ste": ("sr-ste", {}),
    "1:16, decayed": ("nm-gradient-flow", {"m": 16}),
    "1:16, straight-through": ("nm-gradient-flow", {"m": 16, "backward": "straight-through"}),
}

"""A parametrization and its options; `hidden` is the width of the net, where it is another."""
TEXT: dict[str, Arm] = {
    "dense": ("", {}),
    "dense, narrow": ("", {"hidden": 64}),
    **{name: ARMS[name] for name in ("low rank", "sltrain", "maestro")},
    "sst, rank 16": ("sst", {"rank": 16, "every": 20}),
}
INNER = {128: 384, 64: 128}
"""Of the Llama's MLP, by its width: a narrow one has a fifth of the numbers."""


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        start: a seed and a width -> a model.
        exclude: matrices that stay dense.
        tried: batches of a rate that is tried.
        batches: all.
        pick: a score, higher where it is better, by data that rates are picked by.
        judge: the score that is reported.
        unit: its name.
        steps: in all.
        few: of a rate that is tried.
        told: of the size of the task.
    """

    start: Callable[[int, int], nn.Module]
    exclude: tuple[str, ...]
    tried: Batches
    batches: Batches
    loss: Loss
    pick: Callable[[nn.Module], float]
    judge: Callable[[nn.Module], float]
    unit: str
    steps: int
    few: int
    told: Mapping[str, Any]


def clothes(directory: Path) -> Task:
    (x, y), (others, labels) = fashion(directory, "train"), fashion(directory, "t10k")
    return Task(
        lambda seed, hidden: mlp(seed, (hidden, hidden)),
        ("head",),
        shuffled(x[:50_000], y[:50_000], BATCH),
        shuffled(x, y, BATCH),
        F.cross_entropy,
        lambda model: float(right(model, x[50_000:], y[50_000:]).double().mean()),
        lambda model: float(right(model, others, labels).double().mean()),
        "accuracy",
        PASSES * len(x) // BATCH,
        25_000 // BATCH,
        {"passes": PASSES},
    )


def text() -> Task:
    from benchmarks.parametrizations.articles import articles
    from benchmarks.parametrizations.monarch import LENGTH, llama

    read = articles(8)
    return Task(
        lambda seed, width: llama(seed, read.words, 2, width, INNER[width]),
        (),
        read.batches,
        read.batches,
        read.loss,
        lambda model: -read.pick(model),
        read.judge,
        "loss",
        200,
        100,
        {"steps": 200, "tokens": 8 * LENGTH},
    )


def hidden_numbers(model: nn.Module) -> int:
    """Numbers in all linear maps but the head."""
    maps = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return sum(module.weight.numel() for name, module in maps.items() if not name.endswith("head"))


def run(task: Task, arm: Arm, batches: Batches, steps: int, seed: int, rate: float) -> tuple[nn.Module, dict[str, Any]]:
    """The trained net; share of the hidden matrices' bytes and multiply-adds, numbers that train, and seconds."""
    method, options = arm
    options = dict(options)
    dense = hidden_numbers(task.start(seed, HIDDEN))
    model = task.start(seed, options.pop("hidden", HIDDEN))
    made = eckart.reparametrize(model, method, exclude=task.exclude, seed=seed, **options) if method else None
    macs = bytes_ = 0
    if made is None:
        macs, bytes_ = hidden_numbers(model), 4 * hidden_numbers(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    seconds = train(model, batches, steps, seed, loss=task.loss, rate=rate, made=made)
    if made is not None:
        made.finish()
        bytes_ = sum(s.cost().bytes for s in made.structures.values())
        macs = sum(s.cost().macs for s in made.structures.values())
    return model, {"bytes": bytes_ / (4 * dense), "macs": macs / dense, "trained": trained, "cpu_seconds": seconds}


def best_rate(task: Task, name: str, arm: Arm) -> float:
    """The rate that scores best on the data for picking."""
    tried = {rate: task.pick(run(task, arm, task.tried, task.few, 100, rate)[0]) for rate in RATES}
    print(name, tried, flush=True)
    return max(tried, key=lambda rate: tried[rate] if math.isfinite(tried[rate]) else -math.inf)


def compared(rows: Rows, what: dict[str, Any], task: Task, arm: Arm, rate: float, steps: int, first: Row | None) -> Row:
    """A row: mean and spread over seeds, and the difference from the dense net, paired by seed."""
    scores, told = [], []
    for seed in range(what["seeds"]):
        model, facts = run(task, arm, task.batches, steps, seed, rate)
        scores.append(task.judge(model))
        told.append(facts)
    paired = [a - b for a, b in zip(scores, first.found["scores"] if first else scores, strict=True)]
    return rows.add(
        what,
        {
            task.unit: statistics.mean(scores),
            "spread": statistics.stdev(scores),
            "change": statistics.mean(paired),
            "change_stderr": statistics.stdev(paired) / len(paired) ** 0.5,
            "rate": rate,
            "edge": rate in (RATES[0], RATES[-1]),
            "scores": scores,
            "taken": steps,
            **{key: told[0][key] for key in ("bytes", "macs", "trained")},
            "cpu_seconds": min(facts["cpu_seconds"] for facts in told),
        },
    )


def step_seconds(rows: Rows, part: str, task: Task, every: Mapping[str, Arm]) -> dict[str, float]:
    """The mean processor seconds of a step of each arm, measured in turns, as a row each."""
    what = {"part": f"{part}, a step", "turns": TURNS}
    if all(rows.get({**what, "arm": name}) is not None for name in every):
        return {name: rows.get({**what, "arm": name}).found["cpu_seconds"] for name in every}  # type: ignore[union-attr]
    clocks: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(TURNS):
        for name, arm in every.items():
            clocks[name].append(run(task, arm, task.batches, FEW, 0, RATES[0])[1]["cpu_seconds"] / FEW)
    found = {name: min(each) for name, each in clocks.items()}
    for name, each in found.items():
        rows.add({**what, "arm": name}, {"cpu_seconds": each, "ratio": each / found["dense"]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["clothes", "text"])
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", help="some of the arms; dense is among them")
    parser.add_argument("--seconds", action="store_true", help="in equal seconds too")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task, every = (clothes(options.fashion), ARMS) if options.part == "clothes" else (text(), TEXT)
    rows = Rows("parametrizations.arms", options.json)
    names = ["dense", *(arm for arm in options.arms or every if arm != "dense")]
    first: dict[str, Row] = {}
    seconds = step_seconds(rows, options.part, task, {name: every[name] for name in names}) if options.seconds else {}
    for name in names:
        key = {"arm": name, "method": every[name][0], **task.told, "seeds": options.seeds}
        rate: float | None = None
        for part in (options.part, f"{options.part}, equal seconds")[: 1 + options.seconds]:
            what, beside = {"part": part, **key}, first.get(part)
            row = rows.get(what)
            if row is None:
                rate = rate or best_rate(task, name, every[name])
                ratio = 1.0 if part == options.part else seconds[name] / seconds["dense"]
                steps = round(task.steps * min(1 / ratio, 4.0))
                row = compared(rows, what, task, every[name], rate, steps, beside)
            print(name, part, {key: each for key, each in row.found.items() if key != "scores"}, flush=True)
            if name == "dense":
                first[part] = row
            rate = row.found["rate"]


if __name__ == "__main__":
    main()
