"""Calibration passes of a model of float32 in bfloat16: what they take, and what becomes of statistics and of a plan.

    OMP_NUM_THREADS=1 python -m benchmarks.inference.mixed_passes [--json FILE]

smollm2 reads `SAMPLES` x `LENGTH` tokens of an encyclopedia, in float32, with `mixed_precision`, and in float32 with
labels of another seed. Processor seconds of statistics of all matrices, the first pass of a process left out; relative
change of second moments (Frobenius norm); and of `kfac` on the matrices of `BLOCKS`, which keep `KEEP` of their
parameters: by how much the error of the plan, as the statistics of the first arm judge it, is above that of their own
plan.
"""

from __future__ import annotations

import argparse
import statistics as st
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.plan import Plan, make_plan
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.statistics import Need, Statistics, collect
from eckart.texts.corpora import corpus
from eckart.texts.sequences import sequences

SAMPLES, LENGTH = 4, 256
BLOCKS, KEEP = (0, 14, 29), 0.6
MOMENTS = {"input": Need.INPUT_SECOND_MOMENT, "gradient": Need.GRADIENT_SECOND_MOMENT}
ARMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"mixed_precision": True},
    "float32, labels of another seed": {"seed": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    rows = Rows("inference.mixed_passes", parser.parse_args().json)
    model, tokenizer = load_model("smollm2")
    batches = list(sequences(tokenizer, corpus("wikipedia"), LENGTH, SAMPLES).split(1))
    modules = {site.name: site.module for site in find_sites(model)}
    collect(model, modules, [], batches[:1])  # warms up
    found: dict[str, dict[str, Statistics]] = {}
    plans: dict[str, tuple[Plan, Choice]] = {}
    for arm, options in ARMS.items():
        inputs, _ = timed(model, modules, [MOMENTS["input"]], batches, options)
        both, found[arm] = timed(model, modules, METHODS.find("kfac").needs, batches, options)
        plans[arm] = planned(model, found[arm])
        own, choice = plans["float32"]
        other = plans[arm][1]
        row = {
            "tokens": SAMPLES * LENGTH,
            "seconds": {"inputs": inputs, "inputs and gradients": both},
            "change": {kind: changes(found["float32"], found[arm], need) for kind, need in MOMENTS.items()},
            "error": own.error(other) / own.error(choice) - 1,
        }
        rows.add({"model": "smollm2", "arm": arm}, row)
        print(arm, row, flush=True)


def timed(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    needs: Sequence[Need],
    batches: list[Tensor],
    options: dict[str, Any],
) -> tuple[float, dict[str, Statistics]]:
    """Processor seconds of statistics, and these."""
    start = time.process_time()
    found = collect(model, modules, needs, batches, **options)
    return time.process_time() - start, found


def changes(before: Mapping[str, Statistics], after: Mapping[str, Statistics], need: Need) -> dict[str, float]:
    """The relative change of a moment, over the matrices."""
    found = []
    for name, one in before.items():
        a, b = one.get(need), after[name].get(need)
        found.append(float(torch.linalg.norm(a - b) / torch.linalg.norm(a)))
    return {"median": st.median(found), "largest": max(found)}


def planned(model: nn.Module, statistics: Mapping[str, Statistics]) -> tuple[Plan, Choice]:
    """A plan of some blocks alone, and what is chosen of it."""
    sites = find_sites(model, include=tuple(f"model.layers.{block}.*" for block in BLOCKS))
    plan = make_plan(model, sites, METHODS.find("kfac"), statistics)
    plan.totals = {"linear-parameters": sum(site.weight.numel() for site in sites)}
    plan.fit()
    return plan, plan.choose(KEEP, "linear-parameters")


if __name__ == "__main__":
    main()
