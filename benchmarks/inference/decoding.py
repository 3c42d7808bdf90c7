"""Prefill and batch-1 decoding of a compressed model against the dense one, and where the time goes.

    OMP_NUM_THREADS=1 python -m benchmarks.inference.decoding DENSE COMPRESSED

DENSE and COMPRESSED are model directories (or smollm2); both run in float32 on the same threads, interleaved. For
every kind of matrix the table gives the median time of one product at batch 1, the ratio of the bytes read (what a
memory-bound product could gain) and the ratio of the times; the rest of the model is what both spend outside them.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections import defaultdict

import torch
from torch import nn

from benchmarks.common.rows import Rows, add_option
from eckart.jobs.evaluate.speed import speed
from eckart.models.modules import StructuredLinear
from eckart.models.transformers import load_model


def bytes_of(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


@torch.inference_mode()
def per_matrix(dense: nn.Module, small: nn.Module, rounds: int, rows: Rows, setting: dict[str, str]) -> None:
    """Walks through all layers each round, so that weights come from memory and not from the cache, as in decoding."""
    pairs: dict[str, list[tuple[nn.Module, nn.Module]]] = defaultdict(list)
    for name, module in small.named_modules():
        if isinstance(module, StructuredLinear | nn.Linear) and "lm_head" not in name:
            pairs[re.sub(r".*\.\d+\.", "", name)].append((dense.get_submodule(name), module))
    print(f"{'matrix':>20} {'structured':>10} {'dense us':>9} {'ours us':>9} {'time ratio':>10} {'bytes ratio':>11}")
    sums = [0.0, 0.0]
    for kind, modules in pairs.items():
        x = torch.randn(1, 1, modules[0][0].weight.shape[1])
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for arm in (0, 1):
                start = time.perf_counter()
                for pair in modules:
                    pair[arm](x)
                times[arm].append((time.perf_counter() - start) / len(modules) * 1e6)
        before, after = (statistics.median(t) for t in times)
        sums[0] += before * len(modules)
        sums[1] += after * len(modules)
        share = sum(bytes_of(b) for _, b in modules) / sum(bytes_of(a) for a, _ in modules)
        structured = sum(isinstance(b, StructuredLinear) for _, b in modules)
        found = {"structured": structured, "count": len(modules), "dense_us": before, "compressed_us": after}
        found |= {"time_ratio": after / before, "bytes_ratio": share}
        rows.add({"part": "a matrix", **setting, "matrix": kind}, found)
        print(
            f"{kind:>20} {structured:>4} of {len(modules):<3} {before:>8.1f} {after:>9.1f} "
            f"{after / before:>10.3f} {share:>11.3f}"
        )
    whole = {"dense_us": sums[0], "compressed_us": sums[1], "time_ratio": sums[1] / sums[0]}
    rows.add({"part": "a matrix", **setting, "matrix": "all, a token"}, whole)
    print(f"{'all matrices':>20} {'':>10} {sums[0]:>9.0f} {sums[1]:>9.0f} {sums[1] / sums[0]:>10.3f}   a token")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense")
    parser.add_argument("compressed")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=24)
    parser.add_argument("--of-what", default="", help="how the model was compressed, in words, for the rows")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("inference.decoding", options.json)
    setting = {"model": options.dense, "compressed": options.of_what or options.compressed}
    dense, small = (load_model(name, dtype=torch.float32)[0] for name in (options.dense, options.compressed))
    bytes_ratio = bytes_of(small) / bytes_of(dense)
    result = speed(
        {"before": dense, "after": small},
        prefill_tokens=options.prefill,
        decode_tokens=options.decode,
        repeats=options.repeats,
    )
    print(
        f"float32, {result['threads']} threads, prefill of {options.prefill}, {options.decode} decoded, "
        f"median of {options.repeats}"
    )
    for what in ("prefill", "decode"):
        t = result[f"{what}_tokens_per_second"]
        phase = f"reading {options.prefill} tokens" if what == "prefill" else "decoding"
        found = {"dense": t["before"], "compressed": t["after"], "ratio": result[f"{what}_ratio"]}
        rows.add({"part": "a model", **setting, "phase": phase}, found)
        print(
            f"{what:>8}: dense {t['before']:.1f} tokens/s, compressed {t['after']:.1f} tokens/s, "
            f"ratio {result[f'{what}_ratio']:.3f} (bytes allow {1 / bytes_ratio:.3f})"
        )
    per_matrix(dense, small, options.repeats, rows, setting)


if __name__ == "__main__":
    main()
