"""What optimizers of matrices reach in equal steps and in equal seconds: pictures of clothes, and text.

    python -m benchmarks.optim.training pictures --fashion DIR [--json FILE]
    python -m benchmarks.optim.training text [--json FILE] [--stages seconds | rates | steps | equal] [--steps 400]
    python -m benchmarks.optim.training "larger text" [--json FILE]

pictures: a perceptron 784-128-128-10 on Fashion-MNIST, batches of 64; the share of the 10,000 others that is wrong.
text: a Llama of 2 layers of width 128 on articles of Wikipedia and 2048 tokens of a byte-level BPE, batches of 256
tokens; the loss on held-out articles. larger text: the same with 3 layers of width 512 (8.5 million numbers in hidden
matrices), batches of 512 tokens.
Hidden matrices are moved by the arm, the rest by AdamW at a rate of 0.001 in all arms; no weight decay, a cosine with a
tenth of warm-up. Every arm has four rates (of text three), of which one seed picks by data that are neither learned
from nor judged by (`rates`; of texts in half of the steps); then all seeds run as many steps (`steps`), and as many as
fit into the processor seconds of AdamW (`equal`). Those with a colon are others' packages, and are left out where they
are not installed. What a step takes is measured beforehand, the arms in turns, on a
machine that is idle (`seconds`). Text for more than 100 steps is learned by some of the arms. What --json holds is not
done again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.optim.arms import LARGER, LONGER, TEXT, Arm, arms, counted
from benchmarks.parametrizations.training import Batches, Loss, mlp, right, shuffled

FIRST = "AdamW"
RANKS = {"pictures": 32, "text": 32, "larger text": 128}
EVERY = 25
STEPS, TURNS = 100, 2
STAGES = ("seconds", "rates", "steps", "equal")


@dataclass(frozen=True)
class Size:
    """Of a Llama, and the texts of 128 tokens in a batch."""

    layers: int
    width: int
    inner: int
    texts: int


SIZES = {"text": Size(2, 128, 384, 2), "larger text": Size(3, 512, 1152, 4)}


@dataclass(frozen=True)
class Task:
    """What is learned. Scores are lower where they are better.

    Attributes:
        start: seed -> a model.
        batches: seed -> inputs and targets.
        loss: of outputs and targets.
        pick: a score by data that rates are picked by.
        judge: the score that is reported.
        steps: in all.
        tried: steps of a rate that is tried.
    """

    start: Callable[[int], nn.Module]
    batches: Batches
    loss: Loss
    pick: Callable[[nn.Module], float]
    judge: Callable[[nn.Module], float]
    steps: int
    tried: int


def train(task: Task, arm: Arm, rate: float, steps: int, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """A trained model; processor seconds and the bytes of the state of its matrices' optimizer."""
    model = task.start(seed).train()
    made = arm.optimizers(model, rate, steps)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            each,
            lambda t: min(1.0, (t + 1) / max(1.0, 0.1 * steps)) * (0.1 + 0.45 * (1 + math.cos(math.pi * t / steps))),
        )
        for each in made
    ]
    clock = time.process_time()
    for _, (x, y) in zip(range(steps), task.batches(seed), strict=False):
        task.loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        for each, schedule in zip(made, schedules, strict=True):
            each.step()
            each.zero_grad()
            schedule.step()
    seconds = time.process_time() - clock
    if hasattr(made[0], "finish"):
        made[0].finish()
    return model.eval(), {"cpu_seconds": seconds, "state": sum(counted(made[0]))}


def step_seconds(rows: Rows, what: dict[str, Any], task: Task, every: dict[str, Arm]) -> None:
    """A row an arm: the mean processor seconds of a step, forward and backward in it, the arms in turns."""
    if all(rows.get({**what, "stage": "seconds", "arm": name}) is not None for name in every):
        return
    runs: dict[str, Any] = {}
    for name, arm in every.items():
        model = task.start(0).train()
        runs[name] = model, arm.optimizers(model, arm.rates[0], task.steps), task.batches(0), []
    for turn in range(TURNS + 1):
        for model, made, batches, clocks in runs.values():
            for _ in range(EVERY if turn else 2):
                x, y = next(batches)
                clock = time.process_time()
                task.loss(model(x), y).backward()
                for each in made:
                    each.step()
                    each.zero_grad()
                if turn:
                    clocks.append(time.process_time() - clock)
    first = statistics.mean(runs[FIRST][-1])
    for name, (*_, clocks) in runs.items():
        found = {"mean_ms": 1e3 * statistics.mean(clocks), "ratio": statistics.mean(clocks) / first}
        print(name, rows.add({**what, "stage": "seconds", "arm": name}, found).found, flush=True)


def best_rate(rows: Rows, what: dict[str, Any], task: Task, name: str, arm: Arm) -> float:
    """The rate whose model scores best on the data for picking."""
    scores = {}
    for rate in arm.rates:
        key = {**what, "stage": "rates", "arm": name, "rate": rate, "steps": task.tried}
        row = rows.get(key)
        if row is None:
            model, found = train(task, arm, rate, task.tried, 0)
            score = task.pick(model)
            row = rows.add(key, {"score": score if math.isfinite(score) else None, **found})
        print(name, rate, row.found, flush=True)
        scores[rate] = math.inf if row.found["score"] is None else row.found["score"]
    return min(scores, key=lambda rate: scores[rate])


def same(rows: Rows, key: dict[str, Any], rate: float, steps: int) -> dict[str, Any] | None:
    """What these seeds came to at this rate where another number of rates was tried."""
    rest = {name: value for name, value in key.items() if name != "trials"}
    for row in rows:
        what = {name: value for name, value in row.what.items() if name != "trials"}
        if what == rest and (row.found["rate"], row.found["steps"]) == (rate, steps):
            return {name: row.found[name] for name in ("scores", "cpu_seconds", "state_bytes")}
    return None


def learned(task: Task, arm: Arm, rate: float, steps: int, seeds: int) -> dict[str, Any]:
    """Scores of all seeds, mean processor seconds, and bytes of state by number."""
    scores, clocks, state, count = [], [], 0, 1
    for seed in range(1, seeds + 1):
        model, found = train(task, arm, rate, steps, seed)
        scores.append(task.judge(model))
        clocks.append(found["cpu_seconds"])
        made = arm.optimizers(model, rate, steps)[0]
        state, count = found["state"], sum(p.numel() for group in made.param_groups for p in group["params"])
    return {"scores": scores, "cpu_seconds": statistics.mean(clocks), "state_bytes": state / count}


def compare(
    rows: Rows, what: dict[str, Any], task: Task, every: dict[str, Arm], seeds: int, stages: Sequence[str]
) -> None:
    """A row an arm and stage: mean and spread over seeds, and the difference from AdamW, paired by seed."""
    told = {"budget": task.steps} if what["part"] in SIZES else {}
    rates = {name: best_rate(rows, what, task, name, arm) for name, arm in every.items()}
    first: list[float] = []
    for stage in [f"equal {'steps' if each == 'steps' else 'seconds'}" for each in stages if each != "rates"]:
        for name, arm in every.items():
            key = {**what, **told, "stage": stage, "arm": name, "seeds": seeds, "trials": len(arm.rates)}
            row = rows.get(key)
            if row is None:
                rate, steps, ratio = rates[name], task.steps, 1.0
                if stage == "equal seconds":
                    timed = rows.get({**what, "stage": "seconds", "arm": name})
                    if timed is None:
                        raise SystemExit("what a step takes has not been measured: --stages seconds")
                    ratio = timed.found["ratio"]
                    steps = max(10, round(task.steps * min(1 / ratio, 4.0)))
                found = same(rows, key, rate, steps) or learned(task, arm, rate, steps, seeds)
                scores = found["scores"]
                paired = [a - b for a, b in zip(scores, first or scores, strict=True)]
                row = rows.add(
                    key,
                    {
                        "score": statistics.mean(scores),
                        "spread": statistics.stdev(scores),
                        "change": statistics.mean(paired),
                        "change_stderr": statistics.stdev(paired) / seeds**0.5,
                        "rate": rate,
                        "edge": rate in (arm.rates[0], arm.rates[-1]),
                        "steps": steps,
                        "ratio": ratio if stage == "equal seconds" else None,
                        "card": arm.card,
                        **found,
                    },
                )
            print(name, stage, row.found, flush=True)
            if name == FIRST:
                first = row.found["scores"]


def pictures(directory: Path, steps: int) -> Task:
    (x, y), (others, labels) = fashion(directory, "train"), fashion(directory, "t10k")
    x, y, picked, told = x[:55000], y[:55000], x[55000:], y[55000:]
    return Task(
        lambda seed: mlp(seed, (128, 128)),
        shuffled(x, y, 64),
        F.cross_entropy,
        lambda model: 1 - float(right(model, picked, told).double().mean()),
        lambda model: 1 - float(right(model, others, labels).double().mean()),
        steps,
        steps,
    )


def text(size: Size, steps: int) -> Task:
    from benchmarks.parametrizations.articles import articles
    from benchmarks.parametrizations.monarch import llama

    read = articles(size.texts)
    return Task(
        lambda seed: llama(seed, read.words, size.layers, size.width, size.inner),
        read.batches,
        read.loss,
        read.pick,
        read.judge,
        steps,
        steps // 2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["pictures", *SIZES])
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--arms", nargs="*", help="only these, beside AdamW")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    part: str = options.part
    task = text(SIZES[part], options.steps) if part in SIZES else pictures(options.fashion, options.steps)
    every = arms(RANKS[part], EVERY)
    if part == "larger text":
        every = {name: every[name] for name in LARGER}
    elif part == "text":
        longer = LONGER if options.steps > STEPS else tuple(TEXT)
        every = {
            name: replace(every[name], rates=rates) for name, rates in TEXT.items() if name in longer and name in every
        }
    if options.arms:
        every = {name: arm for name, arm in every.items() if name in (FIRST, *options.arms)}
    rows, what = Rows("optim.training", options.json), {"part": part, "rank": RANKS[part], "every": EVERY}
    if part in SIZES:
        what |= {"layers": SIZES[part].layers, "tokens": SIZES[part].texts * 128}
    stages = [stage for stage in options.stages if stage != "seconds"]
    if "seconds" in options.stages:
        step_seconds(rows, what, task, every)
    if stages:
        compare(rows, what, task, every, options.seeds, stages)


if __name__ == "__main__":
    main()
