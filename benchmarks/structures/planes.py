"""Time of products with planes of signs beside a dense layer and codes, one vector or several at once.

Weights are cold: each arm goes through copies of its matrix that take more than the caches. Seconds of the thread's
processor time, the least of several rounds; on a busy machine ratios are good to some 15 %.

    python -m benchmarks.structures.planes
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.rows import machine
from eckart.ops.native.library import capped, levels
from eckart.structures import BinaryCoded, Quantized, StructuredMatrix

SHAPES = ((1536, 576), (4096, 4096))
COLD = 40_000_000
"""Bytes of the copies of an arm."""
GROUP = 128


def planes(bits: int) -> Callable[[int, int], StructuredMatrix]:
    def make(out: int, columns: int) -> StructuredMatrix:
        scales = torch.rand(out, -(-columns // GROUP), bits)
        return BinaryCoded.from_planes(torch.rand(bits, out, columns) < 0.5, scales, group=GROUP)

    return make


def codes(bits: int) -> Callable[[int, int], StructuredMatrix]:
    return lambda out, columns: Quantized.quantize(torch.randn(out, columns), bits, GROUP)


ARMS = {f"{bits} planes": planes(bits) for bits in (1, 2, 3, 4)} | {f"{bits} bits": codes(bits) for bits in (2, 3, 4)}


def seconds(products: list[Callable[[Tensor], Tensor]], x: Tensor, rounds: int) -> float:
    """Of one product, the least over rounds of the mean over copies."""
    best = float("inf")
    for _ in range(rounds + 1):  # the first one warms up
        start = time.thread_time()
        for product in products:
            product(x)
        best = min(best, (time.thread_time() - start) / len(products))
    return best


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {machine()}, seed {arguments.seed}, groups of {GROUP}")
    for out, columns in SHAPES:
        weights = [torch.randn(out, columns) for _ in range(max(2, COLD // (4 * out * columns)))]
        linear: list[Callable[[Tensor], Tensor]] = [lambda x, w=w: F.linear(x, w) for w in weights]  # type: ignore[misc]
        made = {name: make(out, columns) for name, make in ARMS.items()}
        for vectors in (1, 8):
            x = torch.randn(vectors, columns)
            dense = seconds(linear, x, arguments.rounds)
            print(
                f"\n{out} x {columns}, {vectors} vectors: dense {1e6 * dense:.0f} us; shares of its time, of its bytes"
            )
            for name, matrix in made.items():
                size = matrix.cost().bytes
                copies = [ARMS[name](out, columns) for _ in range(min(64, max(2, COLD // size)) - 1)]
                found = []
                for level in levels():
                    with capped(level):
                        found.append(f"{level} {seconds([matrix, *copies], x, arguments.rounds) / dense:.3f}")
                print(f"{name:>9} {', '.join(found)}; {size / (4 * out * columns):.3f}", flush=True)


if __name__ == "__main__":
    main()
