"""Products of compressed matrices against the dense product, by layout, shape, batch and threads.

    OMP_NUM_THREADS=1 python -m benchmarks.inference.products --json FILE

Weights come from memory and not from the caches, as in decoding: every arm goes through copies of its matrix that take
`--cold` megabytes in all. Arms take turns, in reverse order in every other round; of the rounds the median is reported,
and its ratio to the dense product in float32. The peers are PyTorch's own packed products, SciPy's compressed rows and,
where it is installed, ONNX Runtime. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option, machine
from benchmarks.inference import product_peers as peers
from eckart import native
from eckart.ops.packing import normal_float
from eckart.structures import (
    BinaryCoded,
    Chain,
    ColumnSparse,
    Dense,
    Interpolative,
    Masked,
    Quantized,
    RoundedInput,
    SemiSparse,
    Sparse,
    Sum,
    VectorQuantized,
    low_rank,
)
from eckart.structures.group_sparse import GroupSparse
from eckart.structures.group_sparse_codes import GroupSparseCodes

SHAPES = ((1536, 576), (4096, 4096), (11008, 4096))
BATCHES = (1, 4, 32, 256)
Product = Callable[[Tensor], object]


@dataclass(frozen=True)
class Arm:
    """One way to hold a matrix and to multiply by it.

    Attributes:
        make: W (out, in), float32 -> the product, and the bytes that it reads.
        dtype: of the inputs.
        largest: batch up to which it is measured.
    """

    make: Callable[[Tensor], tuple[Product, int]]
    dtype: torch.dtype = torch.float32
    largest: int = 256


def size(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def dense(dtype: torch.dtype) -> Callable[[Tensor], tuple[Product, int]]:
    def make(weight: Tensor) -> tuple[Product, int]:
        copy = weight.to(dtype, copy=True)
        return lambda x: F.linear(x, copy), size(copy)

    return make


def structure(build: Callable[[Tensor], nn.Module]) -> Callable[[Tensor], tuple[Product, int]]:
    def make(weight: Tensor) -> tuple[Product, int]:
        made = build(weight).requires_grad_(False)
        return made.forward, size(*made.parameters(), *made.buffers())

    return make


def largest(weight: Tensor, share: float) -> Tensor:
    """The same share of entries in every row."""
    keep = int(weight.shape[1] * share)
    return torch.zeros_like(weight, dtype=torch.bool).scatter_(1, weight.abs().topk(keep, 1).indices, True)


def groups(weight: Tensor, share: float) -> Tensor:
    return largest(F.pad(weight, (0, -weight.shape[1] % 16)).unflatten(1, (-1, 16)).norm(dim=-1), share)


def planes(weight: Tensor) -> BinaryCoded:
    """Two of them, with any scales: what they hold does not matter to the time."""
    out, columns = weight.shape
    signs = (weight > 0).expand(2, out, columns)
    return BinaryCoded.from_planes(signs, torch.rand(out, -(-columns // 64), 2), group=64)


def vectors(weight: Tensor, bits: int, length: int) -> VectorQuantized:
    """Any codes, scales and codebook: what they hold does not matter to the time."""
    out, columns = weight.shape
    codes = torch.randint(1 << bits, (-(-out // length), columns), dtype=torch.uint8)
    return VectorQuantized.from_codes(
        codes, torch.rand(out, -(-columns // 64)), torch.randn(1 << bits, length), group=64
    )


def factors(weight: Tensor, share: float) -> Chain:
    """Any that hold that share of the entries: what they hold does not matter to the time."""
    out, columns = weight.shape
    rank = int(share * out * columns / (out + columns))
    return low_rank(weight[:, :1].expand(out, rank).clone(), weight[:1].expand(rank, columns).clone())


def picked(weight: Tensor, share: float) -> Interpolative:
    """As many rows as make r (out + in - r) entries that share, and the others as combinations of them."""
    out, columns = weight.shape
    rank = max(r for r in range(1, min(out, columns)) if r * (out + columns - r) <= share * out * columns)
    order = torch.randperm(out, generator=torch.Generator().manual_seed(0))
    return Interpolative(order, weight[:1, :1].expand(out - rank, rank).clone(), weight[:rank].clone())


def dictionary(weight: Tensor, share: float) -> Chain:
    """A sparse matrix, half of it stored, times atoms, as `cospadi` makes them."""
    out, columns = weight.shape
    atoms = int(share * out * columns / (columns + out / 2))
    return Chain(Masked.from_dense(weight[:, :1].expand(out, atoms), largest(torch.randn(out, atoms), 0.5)),
                 Dense(weight[:1].expand(atoms, columns).clone()))  # fmt: skip


def arms() -> dict[str, Arm]:
    """All of them by name; the first is what the others are compared with."""
    half = torch.bfloat16
    found = {
        "dense fp32": Arm(dense(torch.float32)),
        "dense bf16, PyTorch": Arm(dense(half), half),
        "int4 g64": Arm(structure(lambda w: Quantized.quantize(w, 4, 64))),
        "int4 g32": Arm(structure(lambda w: Quantized.quantize(w, 4, 32))),
        "int4 g64, int8 inputs": Arm(structure(lambda w: RoundedInput(Quantized.quantize(w, 4, 64)))),
        "int4 g64, bf16 inputs": Arm(structure(lambda w: Quantized.quantize(w.to(half), 4, 64)), half),
        "int8 a row": Arm(structure(lambda w: Quantized.quantize(w, 8, w.shape[1], symmetric=True))),
        "int8 a row, int8 inputs": Arm(
            structure(lambda w: RoundedInput(Quantized.quantize(w, 8, w.shape[1], symmetric=True)))
        ),
        "int3 g64": Arm(structure(lambda w: Quantized.quantize(w, 3, 64))),
        "int2 g64": Arm(structure(lambda w: Quantized.quantize(w, 2, 64))),
        "nf4 g64": Arm(structure(lambda w: Quantized.quantize(w, 4, 64, codebook=normal_float(4)))),
        "nf3 g64": Arm(structure(lambda w: Quantized.quantize(w, 3, 64, codebook=normal_float(3)))),
        "2 planes of signs g64": Arm(structure(planes)),
        "codes of 4 rows, 2 bits g64": Arm(structure(lambda w: vectors(w, 8, 4))),
        "codes of 2 rows, 2 bits g64": Arm(structure(lambda w: vectors(w, 4, 2))),
        "codes of 2 rows, 3 bits g64": Arm(structure(lambda w: vectors(w, 6, 2))),
        "codes of 2 rows, 4 bits g64": Arm(structure(lambda w: vectors(w, 8, 2))),
        "mask 50 %": Arm(structure(lambda w: Masked.from_dense(w, largest(w, 0.5)))),
        "mask 50 %, bf16 values": Arm(structure(lambda w: Masked.from_dense(w.to(half), largest(w, 0.5)))),
        "mask 20 %": Arm(structure(lambda w: Masked.from_dense(w, largest(w, 0.2)))),
        "2:4": Arm(structure(lambda w: SemiSparse.from_dense(w, 2, 4))),
        "rows 20 %": Arm(structure(lambda w: Sparse.from_dense(w * largest(w, 0.2)))),
        "columns 20 %": Arm(structure(lambda w: ColumnSparse.from_dense(w, len(w) // 5))),
        "groups of 16, 50 %": Arm(structure(lambda w: GroupSparse.from_dense(w, groups(w, 0.5)))),
        "groups of 16, 20 %": Arm(structure(lambda w: GroupSparse.from_dense(w, groups(w, 0.2)))),
        "groups of 16, 50 %, int4": Arm(structure(lambda w: GroupSparseCodes.quantize(w, groups(w, 0.5), 4))),
        "two factors, 80 %": Arm(structure(lambda w: factors(w, 0.8))),
        "two factors, 80 %, bf16": Arm(structure(lambda w: factors(w.to(half), 0.8)), half),
        "rows and combinations of them, 80 %": Arm(structure(lambda w: picked(w, 0.8))),
        "dictionary, 80 %": Arm(structure(lambda w: dictionary(w, 0.8))),
        "int4 g64 and two factors, 20 %": Arm(structure(lambda w: Sum(Quantized.quantize(w, 4, 64), factors(w, 0.2)))),
        "PyTorch int4 g64, bf16": Arm(peers.torch_int4, half),
        "PyTorch int8, int8 inputs": Arm(peers.torch_int8),
        "SciPy rows 20 %": Arm(lambda w: peers.scipy_rows(w * largest(w, 0.2)), largest=4),
    }
    if util.find_spec("onnxruntime") and util.find_spec("onnx"):
        found["ONNX Runtime fp32"] = Arm(peers.onnx_dense)
        found["ONNX Runtime int4 g64"] = Arm(lambda w: peers.onnx_int4(w, accuracy=1))
        found["ONNX Runtime int4 g64, int8 inputs"] = Arm(lambda w: peers.onnx_int4(w, accuracy=4))
    return found


class Made:
    """An arm's matrix, in as many copies as it takes to read them from memory."""

    @torch.inference_mode()
    def __init__(self, arm: Arm, shape: tuple[int, int], cold: int) -> None:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 64
        first, self.bytes = arm.make(weight)
        copies = min(15, cold // max(1, self.bytes))
        self.products = [first, *(arm.make(weight)[0] for _ in range(max(1, copies)))]
        self.dtype, self.columns = arm.dtype, shape[1]

    @torch.inference_mode()
    def seconds(self, batch: int) -> float:
        """Of one product, the median over the copies."""
        x = torch.randn(batch, self.columns, generator=torch.Generator().manual_seed(1)).to(self.dtype)
        found = []
        for product in self.products:
            start = time.perf_counter()
            product(x)
            found.append(time.perf_counter() - start)
        return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cold", type=int, default=80, help="megabytes of weights that an arm goes through")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", default=",".join(f"{m}x{n}" for m, n in SHAPES))
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)))
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("inference.products", options.json)
    print(native())
    torch.set_num_threads(options.threads)
    batches = [int(batch) for batch in options.batches.split(",")]
    for m, n in (tuple(map(int, text.split("x"))) for text in options.shapes.split(",")):
        base, *others = arms()
        for start in range(0, len(others), 4):
            some(rows, (m, n), [base, *others[start : start + 4]], batches, options)


def some(rows: Rows, shape: tuple[int, int], names: list[str], batches: list[int], options: argparse.Namespace) -> None:
    """A row for each of a few arms and batches, all arms measured in turns beside the first of them."""
    every = arms()

    def key(name: str, batch: int) -> dict[str, int | str]:
        of = {"rows": shape[0], "columns": shape[1], "batch": batch, "threads": options.threads, "arm": name}
        return {**of, "instructions": machine()["instructions"]}

    missing = [b for b in batches if any(b <= every[n].largest and rows.get(key(n, b)) is None for n in names[1:])]
    if not missing:
        return
    made = {name: Made(every[name], shape, options.cold << 20) for name in names}
    for batch in missing:
        here = {name: each for name, each in made.items() if batch <= every[name].largest}
        seconds: dict[str, list[float]] = {name: [] for name in here}
        for turn in range(options.rounds + 1):
            for name in here if turn % 2 == 0 else reversed(here):
                found = here[name].seconds(batch)
                if turn:  # the first round warms up
                    seconds[name].append(found)
        base = seconds[names[0]]
        for name in list(here)[1:]:
            ratio = statistics.median(a / b for a, b in zip(seconds[name], base, strict=True))
            share = here[name].bytes / made[names[0]].bytes
            row = {"us": statistics.median(seconds[name]) * 1e6, "dense_us": statistics.median(base) * 1e6}
            row |= {"ratio": ratio, "bytes_ratio": share, "over_bytes": ratio / share}
            rows.add(key(name, batch), row)
            print(f"{shape[0]:>6} x {shape[1]:<5} batch {batch:<4} {name:<36}"
                  f"{row['us']:>10.1f} us  {ratio:>6.2f} of dense, bytes {share:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
