"""Low-rank paths beside compressed matrices: metrics and allocations at one rank.

    python -m benchmarks.compressors.compensation --model smollm2 --method magnitude-semi --keep 0.7 --of bytes \
        --rank 64

The base is compressed once; each arm adds paths of the same total size to a copy of it. `eigen` is EoRA as published
(arXiv 2410.21271), `svd` and `diagonal` the paper's baselines.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from torch import nn

import eckart
from benchmarks.common.rows import Rows, add_option
from eckart.jobs.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.jobs.compress.plan import make_plan
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.sharing import share
from eckart.models.transformers import load_model
from eckart.statistics import cache_directory
from eckart.texts.sequences import sequences

ARMS = "none,svd,diagonal,eigen,kfac,kfac+greedy"
NAMES = {
    "svd": "`svd`",
    "diagonal": "`diagonal`",
    "eigen": "`eigen` (EoRA)",
    "kfac": "`kfac`",
    "kfac+greedy": "`kfac`, ranks by one solve",
}
"""What the arms are called in the documentation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--method", default="magnitude-semi")
    parser.add_argument("--keep", type=float, default=0.65)
    parser.add_argument("--of", default="bytes")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--calibration", default="mixture")
    parser.add_argument("--judge", action="append", default=[], help="name of a text; repeatable")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--eval-samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    size = options.samples, options.length, options.seed
    text = calibration_text(options.calibration)
    tokens = calibration_tokens(options.calibration, text, model, tokenizer, *size, cache_directory())
    judges = {
        name: sequences(tokenizer, text_of(name), options.length, options.eval_samples, options.seed)
        for name in options.judge or ["news", "docstrings"]
    }
    base: nn.Module = share(model)
    calibrated = as_batches(tokens, tokenizer, *size)[0]
    found = eckart.compress(base, options.method, keep=options.keep, of=options.of, calibration=calibrated)
    print(
        f"{options.model}, {options.method} at {options.keep} of {options.of}, paths of rank {options.rank}, "
        f"calibrated on {options.calibration} ({options.samples} sequences of {options.length} tokens, seed "
        f"{options.seed}), judged on {options.eval_samples} sequences; {torch.get_num_threads()} threads"
    )
    print(f"{'paths':>12} {'MB':>7} " + "".join(f"{name:>19} {'KL':>7} " for name in judges) + "seconds")
    rows = Rows("compressors.compensation", options.json)
    setting = {
        "model": options.model,
        "base": options.method,
        "keep": options.keep,
        "of": options.of,
        "rank": options.rank,
        "calibrated on": options.calibration,
        "samples": options.samples,
        "length": options.length,
        "judged on sequences": options.eval_samples,
        "seed": options.seed,
    }
    for arm in options.arms.split(","):
        clock = time.perf_counter()
        trial = copy.deepcopy(base)
        metric, _, allocation = arm.partition("+")
        if arm != "none":
            eckart.compensate(
                trial,
                model,
                options.rank,
                metric=metric,
                allocation=allocation or "uniform",
                calibration=calibrated,
                cache=cache_directory(),
            )
        seconds = time.perf_counter() - clock
        megabytes = make_plan(trial, [], found.plan.method, {}).totals["bytes"] / 1e6
        cells = ""
        scores = {}
        for name, ids in judges.items():
            measured = evaluate(trial, ids, model, micro_batch=4)
            scores[name] = {"value": measured.perplexity, "stderr": measured.stderr, "distance": measured.kl}
            cells += f"{measured.perplexity:>10.2f} +- {measured.stderr or 0:<5.2f} {measured.kl:>7.3f} "
        row = {"paths": NAMES.get(arm, arm), "scores": scores, "megabytes": megabytes}
        rows.add({**setting, "arm": arm}, row | ({"seconds": seconds} if arm != "none" else {}))
        print(f"{arm:>12} {megabytes:>7.1f} {cells}{seconds:>7.0f}", flush=True)


if __name__ == "__main__":
    main()
