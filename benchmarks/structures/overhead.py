"""What a structured module costs over the bare products, in microseconds a call, one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.structures.overhead

Arms are interleaved; each figure is the median over rounds of the mean of a burst of calls.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.common.rows import Rows, add_option
from eckart import StructuredLinear
from eckart.structures import Dense, Interpolative, low_rank

NAMES = {"two products": "the two products alone", "StructuredLinear(Chain of two)": "`StructuredLinear(Chain)` of two"}
"""What the arms are called in the documentation."""


def medians(arms: dict[str, Callable[[], object]], rounds: int = 41, burst: int = 400) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, call in arms.items():
            start = time.perf_counter()
            for _ in range(burst):
                call()
            seconds[name].append((time.perf_counter() - start) / burst)
    return {name: statistics.median(values) * 1e6 for name, values in seconds.items()}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rank", type=int, default=16)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n, r = options.size, options.rank
    x = torch.randn(1, n)
    linear = torch.nn.Linear(n, n, bias=False)
    dense = StructuredLinear(Dense(linear.weight))
    a, b = torch.randn(n, r), torch.randn(r, n)
    chain = StructuredLinear(low_rank(a, b))
    interpolative = StructuredLinear(Interpolative.from_pivots(torch.randperm(n)[:r], torch.randn(n - r, r), b))
    times = medians(
        {
            "nn.Linear": lambda: linear(x),
            "StructuredLinear(Dense)": lambda: dense(x),
            "two products": lambda: F.linear(F.linear(x, b), a),
            "StructuredLinear(Chain of two)": lambda: chain(x),
            "StructuredLinear(Interpolative)": lambda: interpolative(x),
        }
    )
    print(f"{n} x {n}, rank {r}, batch 1, float32, one thread, torch {torch.__version__}")
    rows = Rows("structures.overhead", options.json)
    for name, value in times.items():
        rows.add({"arm": NAMES.get(name, f"`{name}`"), "size": n, "rank": r}, {"us": value})
        print(f"{name:>36} {value:8.2f} us")
    print(f"Dense over nn.Linear: {times['StructuredLinear(Dense)'] - times['nn.Linear']:.2f} us (bound 5)")
    print(
        f"Chain over two products: {times['StructuredLinear(Chain of two)'] - times['two products']:.2f} us (bound 8)"
    )


if __name__ == "__main__":
    main()
