"""What a step of an optimizer takes: bytes of state, which are counted, and time, on a machine that is idle.

    python -m benchmarks.optim.steps bytes [--json FILE]
    python -m benchmarks.optim.steps times [--json FILE] [--arms NAME ...]

bytes: of the state a number of a matrix, 512 x 512 and 1024 x 256 at rank 64; everything is counted that is a tensor,
inside of objects too; of weights that are rounded to 8 bits also what they take while they train. times: the processor
seconds of 20 steps behind the first, a look for subspaces (every 20) and two of bases (every 10) among them, for
256 x 256 at rank 64, and 1024 x 1024 and 2048 x 1024 at rank 256; their mean, median and longest.
Beside ours stand torch's AdamW and Muon, and where they are installed AdamW of 8 bits by bitsandbytes, GaLore by its
authors (galore-torch), and SOAP, GaLore, Fira, APOLLO and Muon of pytorch-optimizer. Both Muons compute in bfloat16, as
ours does where that is said, which takes seconds a step where a processor has no units for it: there these take three
steps of the smallest matrix.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common.rows import Rows, add_option
from benchmarks.optim.arms import counted, peers
from eckart.ops.wide_products import slow_dtypes
from eckart.optim import OPTIMIZERS

SIZES = {
    "bytes": [(512, 512, 64), (1024, 256, 64)],
    "times": [(256, 256, 64), (1024, 1024, 256), (2048, 1024, 256)],
}
"""Rows, columns and rank."""
EVERY = 20
EIGHT = "q-galore, weights in 8 bits"
HALF, FEW = ("muon, bfloat16", "torch: Muon", "pytorch-optimizer: Muon"), 3
Make = Callable[[list[Any]], torch.optim.Optimizer]


def ours(rank: int) -> dict[str, Make]:
    """Our optimizers of matrices, with 32 and where it matters 8 bits."""
    found: dict[str, Make] = {}
    for name, card in OPTIMIZERS.items():
        if not isinstance(card.entry, type):
            continue
        known = card.entry([torch.nn.Parameter(torch.zeros(1))]).defaults
        told = {key: value for key, value in (("rank", rank), ("every", EVERY), ("window", 16)) if key in known}
        if name == "apollo-mini":
            del told["rank"]
        if name in ("soap", "dct-adamw", "adam-s"):
            del told["every"]
        found[name] = lambda p, entry=card.entry, told=told: entry(p, **told)  # type: ignore[misc]
        if name in ("adamw", "muon", "galore", "apollo"):
            found[f"{name}, 8 bits"] = lambda p, entry=card.entry, told=told: entry(p, bits=8, **told)  # type: ignore[misc]
        if name == "muon":
            found[HALF[0]] = lambda p, entry=card.entry: entry(p, dtype="bfloat16")  # type: ignore[misc]
        if name == "q-galore":
            found[EIGHT] = lambda p, entry=card.entry, told=told: entry(p, weight_bits=8, **told)  # type: ignore[misc]
    return found


def arms(rank: int) -> dict[str, Make]:
    others: dict[str, Make] = {
        name: lambda p, make=make: make(p, 1e-3)  # type: ignore[misc]
        for name, make in peers(rank, EVERY).items()
    }
    return {**others, **ours(rank)}


def stepped(make: Make, shape: tuple[int, int], count: int) -> tuple[torch.optim.Optimizer, list[float]]:
    """An optimizer after some steps, and the seconds of each."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(shape, generator=generator) / shape[1] ** 0.5)
    optimizer, seconds = make([parameter]), []
    for _ in range(count):
        parameter.grad = torch.randn(shape, generator=generator) / shape[1]
        clock = time.process_time()
        optimizer.step()
        seconds.append(time.process_time() - clock)
    return optimizer, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["bytes", "times"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--arms", nargs="*", help="only these")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = Rows("optim.steps", options.json)
    slow = HALF if torch.bfloat16 in slow_dtypes() else ()
    for m, n, rank in SIZES[options.part]:
        for name, make in arms(rank).items():
            what = {"part": options.part, "arm": name, "rows": m, "columns": n, "rank": rank}
            if rows.get(what) is not None or (name in slow and options.part == "times" and m > 256):
                continue
            if options.arms and name not in options.arms:
                continue
            if options.part == "bytes":
                optimizer = stepped(make, (m, n), 2)[0]
                state, shared = counted(optimizer)
                found: dict[str, Any] = {"state": state / (m * n), "shared": shared / (m * n) or None}
                if name == EIGHT:
                    found["weight"] = optimizer.param_groups[0]["params"][0].element_size()
            else:
                seconds = stepped(make, (m, n), 1 + (FEW if name in slow else EVERY))[1][1:]
                found = {"mean_ms": 1e3 * statistics.mean(seconds)}
                found |= {"median_ms": 1e3 * statistics.median(seconds), "longest_ms": 1e3 * max(seconds)}
            found["card"] = "" if ":" in name else name.partition(",")[0]
            print(what, rows.add(what, found).found, flush=True)


if __name__ == "__main__":
    main()
