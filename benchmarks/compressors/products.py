"""Products of odd integers as planes of signs, and of masks that are decoded panel by panel, against dense ones.

    OMP_NUM_THREADS=1 python -m benchmarks.compressors.products --json FILE

Planes (`bitplane-int`): one token, p planes of weights and q of the input, in groups of 128, beside integers of 4 bits
times inputs of 8 bits, and beside the product of the same planes by tables of sums of the input. Masks
(`flash-llm-spmm`): batches, shares of zeros anywhere, values in 32 and in 16 bits, beside PyTorch's and SciPy's
compressed rows.

Weights come from memory: every arm goes through copies of its matrix that take `--cold` megabytes in all, two at least.
Arms take turns, in reverse order in every other round; times are of the processor, in each round the median over the
copies, and of the rounds the least. Ratios of those to the dense product in float32 stand what else a machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.rows import Rows, add_option
from benchmarks.inference.product_peers import scipy_rows
from eckart.structures import BinaryCoded, BipolarInput, Masked, Quantized, RoundedInput, StructuredMatrix

BENCHMARK = "compressors.products"
GROUP = 128
PLANES = (1, 2, 3, 4)
INPUT_PLANES = (1, 2, 4, 8)
ZEROS = (30, 50, 70, 80, 90)
BATCHES = (8, 32, 128)
Product = Callable[[Tensor], object]


def copies(make: Callable[[], Product], size: int, cold: int) -> list[Product]:
    """An arm's products by as many copies of its matrix as it takes to read them from memory."""
    return [make() for _ in range(max(2, min(15, (cold << 20) // size)))]


def of(build: Callable[[], StructuredMatrix]) -> Callable[[], Product]:
    return lambda: build().requires_grad_(False).forward


def least(arms: Mapping[str, Sequence[Product]], x: Tensor, rounds: int) -> dict[str, float]:
    """Seconds of the processor of each arm's product with x; the first round warms up."""
    found: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name in arms if turn % 2 == 0 else reversed(arms):
            seconds = []
            for product in arms[name]:
                start = time.process_time_ns()
                product(x)
                seconds.append((time.process_time_ns() - start) / 1e9)
            if turn:
                found[name] = min(found.get(name, 1e9), statistics.median(seconds))
    return found


def planes(weight: Tensor, number: int) -> BinaryCoded:
    """Any signs and scales: what they hold does not matter to the time."""
    out, columns = weight.shape
    signs = torch.rand(number, out, columns) > 0.5
    return BinaryCoded.from_planes(signs, torch.rand(out, -(-columns // GROUP), number), group=GROUP)


def of_planes(rows: Rows, weight: Tensor, options: argparse.Namespace) -> None:
    columns, of_all = weight.shape[1], setting(weight, options)
    dense = copies(lambda: _dense(weight.clone()), 4 * weight.numel(), options.cold)
    for p in PLANES:
        arms = {"dense": dense}
        for bits in (4, 2):
            codes = of(lambda bits=bits: RoundedInput(Quantized.quantize(weight, bits, GROUP)))
            arms[f"int{bits}"] = copies(codes, weight.numel() * bits // 8, options.cold)
        held = [planes(weight, p).requires_grad_(False) for _ in range(max(2, min(15, 8 * options.cold // (2 * p))))]
        arms["tables"] = [matrix.forward for matrix in held]
        for q in INPUT_PLANES:
            arms[str(q)] = [BipolarInput(matrix, bits=q).forward for matrix in held]
        times = least(arms, torch.randn(1, columns), options.rounds)
        for q in INPUT_PLANES:
            what = {**of_all, "method": "bitplane-int", "planes": p, "input planes": q}
            found = {name: round(times[str(q)] / times[name], 3) for name in ("dense", "int4", "int2", "tables")}
            rows.add(what, {"us": round(1e6 * times[str(q)], 1), **{f"of {k}": v for k, v in found.items()}})
            print(what, found, flush=True)


def of_masks(rows: Rows, weight: Tensor, options: argparse.Namespace) -> None:
    columns, of_all = weight.shape[1], setting(weight, options)
    order = weight.abs().flatten().argsort(descending=True)
    for zeros in ZEROS:
        kept = torch.zeros(weight.numel(), dtype=torch.bool)
        kept[order[: weight.numel() * (100 - zeros) // 100]] = True
        kept = kept.view_as(weight)
        sparse = weight * kept
        half = Masked.from_dense(weight.bfloat16(), kept)
        arms = {
            "dense": [_dense(weight), _dense(weight.clone())],
            "float32": [Masked.from_dense(weight, kept).requires_grad_(False).forward for _ in range(2)],
            "bfloat16": [m.requires_grad_(False).forward for m in (half, Masked.from_dense(weight.bfloat16(), kept))],
            "torch": [_torch_rows(sparse), _torch_rows(sparse)],
            "scipy": [scipy_rows(sparse)[0], scipy_rows(sparse)[0]],
        }
        for batch in BATCHES:
            times = least(arms, torch.randn(batch, columns), options.rounds)
            what = {**of_all, "method": "flash-llm-spmm", "zeros": zeros / 100, "batch": batch}
            found = {name: round(times[name] / times["dense"], 3) for name in arms if name != "dense"}
            share = round(half.cost().bytes / (2 * weight.numel()), 4)
            rows.add(what, {**found, "dense_us": round(1e6 * times["dense"], 1), "bytes_of_16_bits": share})
            print(what, found, share, flush=True)


def setting(weight: Tensor, options: argparse.Namespace) -> dict[str, int]:
    """What all rows of a matrix have in common."""
    return {"rows": weight.shape[0], "columns": weight.shape[1], "seed": options.seed}


def _dense(weight: Tensor) -> Product:
    return lambda x: F.linear(x, weight)


def _torch_rows(sparse: Tensor) -> Product:
    matrix = sparse.to_sparse_csr()
    return lambda x: matrix @ x.T


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="rows and columns (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", type=int, default=80, help="megabytes of weights that an arm goes through")
    parser.add_argument("--parts", default="planes,masks")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rows, weight = Rows(BENCHMARK, options.json), torch.randn(options.size, options.size) / 64
    if "planes" in options.parts:
        of_planes(rows, weight, options)
    if "masks" in options.parts:
        of_masks(rows, weight, options)


if __name__ == "__main__":
    main()
