"""How well the time of a product is predicted from what it computes and reads, for each kind of structure.

    OMP_NUM_THREADS=1 python -m benchmarks.inference.gemm_model --methods auto,kfac-int8,nf4 [--json FILE]

Products of the candidates of some methods are timed at several shapes, with one vector and with 128, by whatever
product of a structure runs here; the weights are cold. A model of time is fitted to the products of all shapes but one
and asked for the products of that one: a roofline with an overhead, the same with a ridge regression on what that
leaves, and a sum of prices. Errors are |predicted / measured - 1|. Beside them stand those of a random split into five
parts, of the regression, in which neighbours of every product are seen, as in the paper.

The second table is for choosing ranks: the time of two factors at ranks around multiples of 8, over that of the
multiple below.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.common.rows import Rows, add_option
from eckart.budget.product_time import FORMS, Array, Roofline, Timed, fit_times, left_out_errors
from eckart.compressors.contract import METHODS
from eckart.jobs.compress.product_times import SHAPES, cpu_name, seconds_of, time_method
from eckart.structures import low_rank
from eckart.structures.base import StructuredMatrix

PARTS = 5
OFFSETS = (0, 1, 2, 4, 7, 8)


def random_errors(timed: Sequence[Timed], form: str, seed: int) -> Array:
    """`left_out_errors` for parts that were drawn."""
    part = np.random.default_rng(seed).permutation(len(timed)) % PARTS
    found = np.zeros(len(timed))
    for out in range(PARTS):
        model = fit_times([each for each, p in zip(timed, part, strict=True) if p != out], form)
        for i in np.flatnonzero(part == out):
            found[i] = abs(model.seconds(timed[i].product) / timed[i].seconds - 1)
    return found


def by_kind(timed: Sequence[Timed]) -> dict[str, list[Timed]]:
    kinds: dict[str, list[Timed]] = {}
    for each in timed:
        kinds.setdefault(each.product.kind, []).append(each)
    return kinds


def predictions(timed: Sequence[Timed], rows: Rows, setting: dict[str, object], seed: int) -> None:
    print(
        f"{'kind':>28} {'products':>8} {'Gflop/s':>8} {'GB/s':>6} {'us':>6}   left-out shapes: {', '.join(FORMS)} "
        "(median, worst); random split, regressed"
    )
    for kind, own in sorted(by_kind(timed).items()):
        line = fit_times(own, "roofline").kinds[kind]
        assert isinstance(line, Roofline)
        errors = {form: left_out_errors(own, form) for form in FORMS}
        leaked = random_errors(own, "regressed", seed)
        found = {
            "products": len(own),
            "gflops": line.peak / 1e9,
            "gbytes": line.bandwidth / 1e9,
            "overhead_us": line.overhead * 1e6,
            "random": float(np.median(leaked)),
        }
        for name, each in errors.items():
            found |= {f"{name}_median": float(np.median(each)), f"{name}_worst": float(each.max())}
        rows.add({**setting, "part": "kinds", "kind": kind}, found)
        print(
            f"{kind:>28} {len(own):>8} {found['gflops']:>8.1f} {found['gbytes']:>6.1f} {found['overhead_us']:>6.1f}   "
            + "  ".join(f"{found[f'{form}_median']:>6.1%} {found[f'{form}_worst']:>7.1%}" for form in FORMS)
            + f"  {found['random']:>6.1%}",
            flush=True,
        )


def factors(out: int, rank: int, columns: int) -> StructuredMatrix:
    generator = torch.Generator().manual_seed(0)
    return low_rank(*(torch.randn(shape, generator=generator) for shape in ((out, rank), (rank, columns))))


def ranks(rows: Rows, setting: dict[str, object], repeats: int) -> None:
    print(f"\n{'two factors':>16} {'tokens':>6} " + " ".join(f"{f'8k + {i}':>8}" for i in OFFSETS))
    for out, columns in ((576, 576), (1536, 576), (1536, 1536)):
        for tokens in (1, 128):
            ratios = []
            for base in (64, 128, 256):
                arms = {i: factors(out, base + i, columns) for i in OFFSETS}
                taken = {i: [seconds_of(arm, tokens) for _ in range(repeats)] for i, arm in arms.items()}
                ratios.append([min(taken[i]) / min(taken[0]) for i in OFFSETS])
            means = np.mean(ratios, 0)
            found = {f"plus_{i}": float(mean) for i, mean in zip(OFFSETS, means, strict=True)}
            rows.add({**setting, "part": "ranks", "matrix": f"{out} x {columns}", "tokens": tokens}, found)
            print(f"{f'{out} x {columns}':>16} {tokens:>6} " + " ".join(f"{mean:>8.3f}" for mean in means), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="auto,kfac-int8,nf4", help="names, with commas")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--largest", type=int, default=2048, help="side of the largest matrix that is timed")
    parser.add_argument("--repeats", type=int, default=3, help="of each rank")
    parser.add_argument("--seed", type=int, default=0, help="of the random split")
    add_option(parser)
    options = parser.parse_args()
    rows, dtype = Rows("inference.gemm_model", options.json), getattr(torch, options.dtype)
    shapes = [shape for shape in (*SHAPES, (2048, 2048)) if max(shape) <= options.largest]
    setting = {"dtype": options.dtype, "threads": torch.get_num_threads(), "shapes": len(shapes)}
    timed: dict[str, Timed] = {}
    for name in options.methods.split(","):
        samples = time_method(METHODS.find(name), dtype, shapes)
        timed |= {repr(sample.timed.product): sample.timed for sample in samples}
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, {options.dtype}, {len(shapes)} shapes")
    predictions(list(timed.values()), rows, setting, options.seed)
    ranks(rows, setting, options.repeats)


if __name__ == "__main__":
    main()
