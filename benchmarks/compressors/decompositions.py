"""Seconds to fit every matrix of a 135M language model by `kfac` and `lord`, and where they go.

The shapes are those of smollm2 (30 layers, 210 matrices); weights and statistics are random, correlated, float32.
Each kind of matrix is fitted `--layers` times and built at one rank; the totals are for 30 layers. The ceiling is the
time the same floating-point operations take at the speed of a float64 matrix product measured in the same run.

    python -m benchmarks.compressors.decompositions --layers 1
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.common.rows import Rows, add_option
from eckart.compressors import _low_rank as family
from eckart.compressors.contract import METHODS
from eckart.linalg import low_rank as linalg
from eckart.statistics import Statistics

LAYERS = 30
HIDDEN, HEADS, WIDE = 576, 192, 1536
KINDS = {
    "q_proj": (HIDDEN, HIDDEN),
    "k_proj": (HEADS, HIDDEN),
    "v_proj": (HEADS, HIDDEN),
    "o_proj": (HIDDEN, HIDDEN),
    "gate_proj": (WIDE, HIDDEN),
    "up_proj": (WIDE, HIDDEN),
    "down_proj": (HIDDEN, WIDE),
}
PHASES: dict[str, tuple[Any, str]] = {
    "damping": (family, "damped"),
    "root": (linalg, "_root"),
    "product": (linalg, "_multiply"),
    "eigh": (torch.linalg, "eigh"),
    "qr": (torch.linalg, "qr"),
    "dual": (linalg, "_dual"),
    "skeleton": (family, "skeleton"),
}
COLUMNS = ("fit", "damping", "root", "product", "eigh", "dual", "qr", "other", "build", "skeleton")


def material(out: int, columns: int) -> tuple[Tensor, Statistics]:
    """A weight and statistics of inputs and gradients with decaying spectra and a mean, all float32."""

    def moment(n: int) -> Tensor:
        x = torch.randn(2 * n, n) * torch.logspace(0, -2, n)
        x = x @ torch.linalg.qr(torch.randn(n, n)).Q
        product: Tensor = x.T @ x / len(x)
        return product

    mean = 0.1 * torch.randn(columns)
    second = moment(columns) + mean.outer(mean)
    return torch.randn(out, columns), Statistics(
        tokens=2 * columns, input_second_moment=second, input_mean=mean, gradient_second_moment=moment(out)
    )


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds spent in each phase; a phase inside another counts for the outer one."""
    inside: list[str] = []

    def wrap(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            inside.append(phase)
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            inside.pop()
            if not inside:
                seconds[phase] += time.perf_counter() - start
            return result

        return call

    with ExitStack() as stack:
        for phase, (owner, name) in PHASES.items():
            stack.enter_context(mock.patch.object(owner, name, wrap(phase, getattr(owner, name))))
        # The methods import the name `damped` for themselves.
        for method in ("kfac", "lord"):
            names = METHODS[method].entry.fit.__globals__
            if "damped" in names:
                stack.enter_context(mock.patch.dict(names, damped=wrap("damping", names["damped"])))
        yield


def measure(method: str, shape: tuple[int, int], keep: float) -> dict[str, float]:
    """Seconds of one fit and one build, by phase."""
    weight, stats = material(*shape)
    seconds: dict[str, float] = defaultdict(float)
    with timed(seconds):
        start = time.perf_counter()
        fitted = METHODS[method].entry(weight, stats)
        seconds["fit"] = time.perf_counter() - start
        seconds["other"] = seconds["fit"] - sum(seconds[p] for p in PHASES)
        target = keep * weight.numel()
        size = max(s for s, c in zip(fitted.sizes, fitted.costs, strict=True) if c.parameters <= target)
        start = time.perf_counter()
        fitted.build(size)
        seconds["build"] = time.perf_counter() - start
    return seconds


def operations(method: str, shape: tuple[int, int]) -> float:
    """Floating-point operations of one fit: 9 n^3 for eigh (Golub and Van Loan), 2 m n^2 each for QR and its Q."""
    n, m = min(shape), max(shape)
    gram, eigh, cholesky = 2 * n * n * m, 9 * n**3, n**3 / 3
    if method == "kfac":
        return cholesky + 2 * n * n * m + 2 * n * m * m + gram + eigh + 3 * n**3
    if shape[0] <= shape[1]:
        return 2 * n * m * m + gram + eigh
    return cholesky + 2 * n * n * m + gram + eigh + 2 * n * n * m + 4 * m * n * n - 4 * n**3 / 3


def gemm_speed(n: int = HIDDEN, repeats: int = 5) -> float:
    """Operations a second of a float64 matrix product, median."""
    a, times = torch.randn(n, n, dtype=torch.float64), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * n**3 / statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1, help="matrices of each kind to fit (default: %(default)s)")
    parser.add_argument("--keep", type=float, default=0.7, help="share of parameters at build (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("compressors.decompositions", arguments.json)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(f"torch {torch.__version__}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, ", end="")
    print(f"{torch.get_num_threads()} thread(s), seed {arguments.seed}, {arguments.layers} of {LAYERS} layers")
    samples: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    speeds = []
    measure("lord", (64, 64), arguments.keep)
    # The arms take turns, so that what else runs on the machine hits both.
    for _ in range(arguments.layers):
        for kind, shape in KINDS.items():
            speeds.append(gemm_speed())
            for method in ("kfac", "lord"):
                samples[method, kind].append(measure(method, shape, arguments.keep))
    speed = statistics.median(speeds)
    print(f"float64 matrix product: {speed / 1e9:.1f} GFLOP/s; milliseconds a matrix, medians\n")
    for method in ("kfac", "lord"):
        totals: dict[str, float] = defaultdict(float)
        print(f"{method:>10} {'shape':>10}" + "".join(f"{c:>9}" for c in COLUMNS) + f"{'GFLOP':>8}{'ceiling':>9}")
        for kind, shape in KINDS.items():
            row = {c: statistics.median(s.get(c, 0.0) for s in samples[method, kind]) for c in COLUMNS}
            flops = operations(method, shape)
            for column, seconds in (*row.items(), ("GFLOP", flops), ("ceiling", flops / speed)):
                totals[column] += LAYERS * seconds
            cells = "".join(f"{1e3 * row[c]:9.1f}" for c in COLUMNS)
            size = f"{shape[0]}x{shape[1]}"
            print(f"{kind:>10} {size:>10}{cells}{flops / 1e9:8.2f}{1e3 * flops / speed:9.1f}")
        what = {"method": method, "layers": arguments.layers, "keep": arguments.keep, "seed": arguments.seed}
        rows.add(what, {"seconds of 210 matrices": dict(totals), "gflops": speed / 1e9})
        cells = "".join(f"{totals[c]:9.1f}" for c in COLUMNS)
        print(f"{'seconds':>10} {'all 210':>10}{cells}{totals['GFLOP'] / 1e9:8.1f}{totals['ceiling']:9.1f}\n")


if __name__ == "__main__":
    main()
