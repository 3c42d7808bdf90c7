"""Tasks that are learned apart from each other: what each teaches, what it costs of the old, and their sum.

    python -m benchmarks.adapters.apart --stream moved --data DIR --json rows.jsonl

The streams of `sequence.py`; each task is learned beside the model as it was, by an adapter of its own with at most
the trainable numbers of a LoRA of --rank, --seeds times at each of the rates of `RATES`. Then the adapters of one seed
are added up (`eckart.combine`), and their mean is taken. Arms that are no adapter of eckart's are controls: `lora, A
fixed` trains B only, at twice the rank; `flylora, all columns` lets all columns act; `eva, the same ranks` shares no
ranks out. `corda-keep` is calibrated on what the model knew before, `eva` on the task.

Columns: alone, the mean accuracy of the tasks, each with its own adapter; forgotten, the mean of what one adapter costs
(see `sequence.py`); summed, the mean accuracy of the tasks with the sum of all adapters, and averaged, with their mean;
overlap, the mean |cosine| between the changes of two tasks, of B A for `flylora`. Rows of the part `rates` have all
rates; those of `chosen` the rate with the best accuracy alone on held-back data, the differences to other arms seed by
seed with their standard errors, and `equal`: what `lora` forgets less what this arm does where lora has learned as
much, read off the line through lora's rates, seed by seed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import eckart
from benchmarks.adapters.sequence import Learner
from benchmarks.adapters.streams import STREAMS, Stream, unlabelled
from benchmarks.common.rows import Rows, add_option
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.bases import matrix_shape
from eckart.jobs.adapt.run import find_bases
from eckart.structures import Gated, Scaled, StructuredMatrix

RATES = {"split": (3e-4, 1e-3, 3e-3, 1e-2), "moved": (1e-3, 3e-3, 1e-2), "brown": (1e-3, 3e-3)}
FASTER = {"svfit": 10.0}
"""What the rates are multiplied by, for what trains a few large numbers."""
SAME = "eva, the same ranks"


def lora(learner: Learner, number: int, budget: int, name: str) -> Adapter:
    return made(learner, number, budget, name, "lora")


def fixed(learner: Learner, number: int, budget: int, name: str) -> Adapter:
    adapter = made(learner, number, 2 * budget, name, "lora")
    for where, path in adapter.paths.items():
        list(path.parameters())[1].requires_grad_(False)
        adapter.places[where].trains[name] = adapter.places[where].trains[name][:1]
    return adapter


def all_columns(learner: Learner, number: int, budget: int, name: str) -> Adapter:
    adapter = made(learner, number, budget, name, "flylora")
    for path in adapter.paths.values():
        for module in path.modules():
            if isinstance(module, Gated):
                module.active = module.right.shape[0]
    return adapter


def made(learner: Learner, number: int, budget: int, name: str, method: str) -> Adapter:
    stream = learner.stream
    data = unlabelled(stream.known if method == "corda-keep" else stream.tasks[number].learn)
    return eckart.adapt(
        learner.model,
        method,
        name=name,
        parameters=budget,
        include=stream.include,
        calibration=data if ADAPTERS[method].reads_data else None,
        seed=learner.seed + number,
    )


def of(method: str) -> Callable[[Learner, int, int, str], Adapter]:
    return lambda learner, number, budget, name: made(learner, number, budget, name, method)


ARMS: dict[str, Callable[[Learner, int, int, str], Adapter]] = {
    "lora": lora,
    "flylora": of("flylora"),
    "lora, A fixed": fixed,
    "flylora, all columns": all_columns,
    "corda-keep": of("corda-keep"),
    "svfit": of("svfit"),
    "eva": of("eva"),
    SAME: of("eva-same"),
}


@torch.no_grad()
def change(adapter: Adapter, where: str) -> Tensor:
    """What an adapter adds to W, flat; of a path with gates as if all were open."""
    path = adapter.paths[where]
    taken = dict(adapter.places[where].taken.items()).get(adapter.name)
    return (opened(path) - (taken.to_dense() if isinstance(taken, StructuredMatrix) else 0.0)).flatten()


def opened(path: StructuredMatrix) -> Tensor:
    if isinstance(path, Scaled):
        return path.scale * opened(path.matrix)
    return path.left.to_dense() @ path.right.to_dense() if isinstance(path, Gated) else path.to_dense()


def run(stream: Stream, arm: str, rank: int, rate: float, seed: int, steps: int) -> dict[str, Any]:
    """What learning all tasks apart gave."""
    torch.manual_seed(seed)
    learner = Learner(stream, copy.deepcopy(stream.model), rank, rate * FASTER.get(arm, 1.0), seed, steps)
    targets = find_bases(learner.model, stream.include)
    budget = rank * sum(sum(matrix_shape(layer)) for layer in targets.values())
    adapters, found = [], []
    for number, task in enumerate(stream.tasks):
        adapter = ARMS[arm](learner, number, budget, f"task{number}")
        learner.train_adapter(number, adapter)
        values = {"alone": task.test(learner.model), "forgotten": task.forgotten(learner.model)}
        found.append(values | {"validation": task.validation(learner.model), "numbers": learner.numbers})
        adapters.append(adapter)
    means = {column: statistics.fmean(each[column] for each in found) for column in found[0]}
    for word, weight in (("summed", 1.0), ("averaged", 1 / len(adapters))):
        total = eckart.combine(adapters, [weight] * len(adapters), name=word)
        means[word] = statistics.fmean(task.test(learner.model) for task in stream.tasks)
        total.remove()
    pairs = [
        float(F.cosine_similarity(change(one, where), change(other, where), dim=0).abs())
        for one, other in itertools.combinations(adapters, 2)
        for where in one.places.keys() & other.places.keys()
    ]
    return means | {"overlap": statistics.fmean(pairs)}


def difference(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], column: str) -> dict[str, float]:
    """Mine less theirs, seed by seed."""
    values = [a[column] - b[column] for a, b in zip(mine, theirs, strict=True)]
    return {"mean": statistics.fmean(values), "stderr": statistics.stdev(values) / len(values) ** 0.5}


def at_equal(mine: list[dict[str, Any]], lora_rates: list[list[dict[str, Any]]]) -> dict[str, float] | None:
    """What LoRA forgets less what I do, at what I have learned, where its rates reach that with every seed."""
    values = []
    for seed, own in enumerate(mine):
        points = sorted((runs[seed]["alone"], runs[seed]["forgotten"]) for runs in lora_rates)
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            if x0 <= own["alone"] <= x1 and x1 > x0:
                values.append(y0 + (y1 - y0) * (own["alone"] - x0) / (x1 - x0) - own["forgotten"])
                break
    if len(values) < len(mine):
        return None
    return {"mean": statistics.fmean(values), "stderr": statistics.stdev(values) / len(values) ** 0.5}


def summed_up(runs: list[dict[str, Any]]) -> dict[str, Any]:
    columns = [column for column in runs[0] if column != "validation"]
    return {
        column: {
            "mean": statistics.fmean(run[column] for run in runs),
            "spread": statistics.stdev(run[column] for run in runs),
        }
        for column in columns
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", choices=STREAMS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=8, help="of the LoRA")
    parser.add_argument("--tasks", type=int, default=5, help="the first so many of the stream")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default=";".join(ARMS), help="with semicolons")
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("adapters.apart", arguments.json)
    ADAPTERS.add(replace(ADAPTERS["eva"], name="eva-same", ranks=None))
    make, batch, steps, _, _ = STREAMS[arguments.stream]
    stream = make(arguments.data, batch, steps)
    stream.tasks = stream.tasks[: arguments.tasks]
    shared = {"stream": arguments.stream, "rank": arguments.rank, "tasks": arguments.tasks, "seeds": arguments.seeds}
    measured: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for arm in arguments.arms.split(";"):
        measured[arm] = {}
        for rate in RATES[arguments.stream]:
            what = {"part": "rates", **shared, "arm": arm, "rate": rate * FASTER.get(arm, 1.0)}
            row = rows.get(what)
            if row is None:
                seeds = range(arguments.seeds)
                runs = [run(stream, arm, arguments.rank, rate, seed, steps) for seed in seeds]
                row = rows.add(what, summed_up(runs) | {"runs": runs})
            measured[arm][what["rate"]] = list(row.found["runs"])
            print(line(arm, what["rate"], row.found), flush=True)
    chosen = {arm: max(found, key=lambda rate: validation(found[rate])) for arm, found in measured.items()}
    for arm, rate in chosen.items():
        mine = measured[arm][rate]
        found = summed_up(mine) | {"rate": rate}
        for other in measured.keys() & {"lora", SAME, "lora, A fixed"} - {arm}:
            theirs = measured[other][chosen[other]]
            found[f"over {other}"] = {
                c: difference(mine, theirs, c) for c in ("alone", "forgotten", "summed", "averaged")
            }
        if arm != "lora" and "lora" in measured:
            found["equal"] = at_equal(mine, list(measured["lora"].values()))
        rows.add({"part": "chosen", **shared, "arm": arm}, found)
        print(line(arm, rate, found), found.get("over lora"), found.get("equal"), flush=True)


def validation(runs: list[dict[str, Any]]) -> float:
    return statistics.fmean(run["validation"] for run in runs)


def line(arm: str, rate: float, found: Mapping[str, Any]) -> str:
    columns = ("alone", "forgotten", "summed", "averaged", "overlap")
    words = [f"{column} {found[column]['mean']:.4f} +- {found[column]['spread']:.4f}" for column in columns]
    return f"{arm:>20} rate {rate:g} {' '.join(words)} numbers {found['numbers']['mean']:.0f}"


if __name__ == "__main__":
    main()
