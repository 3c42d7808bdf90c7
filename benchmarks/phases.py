"""Statistics against the forward and backward passes alone, and the phases of a whole compression.

    python benchmarks/phases.py --model smollm2 [--report DIR/report.json]

The passes alone are the same batches, labels and gradients with nothing measured, the graph starting at the first
linear map, as in the statistics. Arms are interleaved, batch by batch; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from eckart.methods import find
from eckart.models.hf import load_model
from eckart.models.sites import find_sites, model_cost
from eckart.statistics.collect import collect


def passes_alone(model: nn.Module, modules: dict[str, nn.Module], ids: torch.Tensor) -> None:
    """Hooks on one module that ask for nothing: forward, sampled labels, backward to its output."""
    first = next(iter(modules))
    collect(model, {first: modules[first]}, find("fwsvd").needs, [ids])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=4, help="in a batch")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--report", type=Path, help="report.json of a compression, whose phases are printed")
    options = parser.parse_args()
    model, _ = load_model(options.model)
    modules = {site.name: site.module for site in find_sites(model)}
    vocabulary = int(model.config.vocab_size)  # type: ignore[union-attr,arg-type]
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {"passes alone": [], "statistics for kfac": []}
    cpus: dict[str, list[float]] = {name: [] for name in times}
    for _ in range(options.batches):
        ids = torch.randint(vocabulary, (options.sequences, options.length), generator=generator)
        for name in times:
            start, cpu = time.perf_counter(), time.process_time()
            if name == "passes alone":
                passes_alone(model, modules, ids)
            else:
                collect(model, modules, find("kfac").needs, [ids])
            times[name].append(time.perf_counter() - start)
            cpus[name].append(time.process_time() - cpu)
    tokens = options.sequences * options.length
    alone, measured = (statistics.median(t) for t in times.values())
    gflop = 4 * model_cost(model)["macs_per_token"] * tokens / 1e9
    print(f"{options.model}, batches of {tokens} tokens, {torch.get_num_threads()} threads")
    print(
        f"forward and backward alone {alone:6.2f} s ({gflop / alone:.0f} GFLOPS), statistics for kfac {measured:6.2f} s"
    )
    print(f"ratio {measured / alone:.2f} (bound 1.5)")
    alone, measured = (statistics.median(t) for t in cpus.values())
    print(f"processor time {alone:6.2f} s and {measured:6.2f} s, ratio {measured / alone:.2f}")
    if options.report:
        report = json.loads(options.report.read_text("utf-8"))
        print(f"\n{report['model']}, {report['method']}, requested {report['requested']}")
        print(f"calibration {report['calibration']}")
        for phase, seconds in report["seconds"].items():
            print(f"{phase:>12} {seconds:8.1f} s")
        peak = report["memory"]["peak_rss_bytes"]
        print(
            f"peak resident memory {peak / 1e9:.2f} GB, dense weights {report['size']['bytes']['before'] / 1e9:.2f} GB"
        )


if __name__ == "__main__":
    main()
