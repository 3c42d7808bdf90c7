"""Statistics against the forward and backward passes alone, and the phases of a whole compression.

    python -m benchmarks.compressors.phases --model smollm2 [--report DIR/report.json]

The passes alone are the same batches, labels and gradients with nothing measured, the graph starting at the first
linear map, as in the statistics. Arms are interleaved, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.models.sites import find_sites, model_cost
from eckart.models.transformers import load_model
from eckart.statistics.collect import collect


def timed(model: nn.Module, modules: dict[str, nn.Module], method: str, batches: list[torch.Tensor]) -> list[float]:
    """Seconds of each batch, and last those of bringing the sums into their final form."""
    laps = [time.perf_counter()]
    collect(
        model, modules, METHODS.find(method).needs, batches, on_progress=lambda *_: laps.append(time.perf_counter())
    )
    laps.append(time.perf_counter())
    return [b - a for a, b in pairwise(laps)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batches", type=int, default=4, help="in a round")
    parser.add_argument("--sequences", type=int, default=4, help="in a batch")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--report", type=Path, help="report.json of a compression, whose phases are printed")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("compressors.phases", options.json)
    model, _ = load_model(options.model)
    modules = {site.name: site.module for site in find_sites(model)}
    first = next(iter(modules))
    vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
    generator = torch.Generator().manual_seed(0)
    shape = options.sequences, options.length
    alone: list[float] = []
    measured: list[float] = []
    last: list[float] = []
    for _ in range(options.rounds):
        batches = [torch.randint(vocabulary, shape, generator=generator) for _ in range(options.batches)]
        # Hooks on one module that ask for next to nothing: forward, sampled labels, backward to its output.
        alone += timed(model, {first: modules[first]}, "fwsvd", batches)[:-1]
        *laps, end = timed(model, modules, "kfac", batches)
        measured += laps
        last.append(end)
    tokens = options.sequences * options.length
    gflop = 4 * model_cost(model)["macs_per_token"] * tokens / 1e9
    print(f"{options.model}, batches of {tokens} tokens, {torch.get_num_threads()} threads, {len(alone)} of each arm")
    setting = {"model": options.model, "tokens of a batch": tokens, "batches": len(alone), "seed": 0}
    for name, of in (("median", statistics.median), ("least", min)):
        base, total = of(alone), of(measured) + of(last) / 16
        found = {"passes alone": base, "statistics for kfac": total, "ratio": total / base, "gflop": gflop}
        rows.add({"part": "statistics", **setting, "of": name}, found)
        print(
            f"{name:>7}: forward and backward alone {base:5.2f} s ({gflop / base:.0f} GFLOPS), statistics for kfac "
            f"{total:5.2f} s, the end shared by 16 batches; ratio {total / base:.2f} (bound 1.5)"
        )
    if options.report:
        report = json.loads(options.report.read_text("utf-8"))
        print(f"\n{report['model']}, {report['method']}, requested {report['requested']}")
        print(f"calibration {report['calibration']}")
        what = {"part": "a whole run", **{name: report[name] for name in ("model", "method", "seed", "requested")}}
        rows.add(what, {"seconds": report["seconds"], "peak_rss_bytes": report["memory"]["peak_rss_bytes"]})
        for phase, seconds in report["seconds"].items():
            print(f"{phase:>12} {seconds:8.1f} s")
        peak = report["memory"]["peak_rss_bytes"]
        print(
            f"peak resident memory {peak / 1e9:.2f} GB, dense weights {report['size']['bytes']['before'] / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
