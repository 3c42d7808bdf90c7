"""Growth of time and memory with size, and a matrix on disk that is larger than the memory allowed.

    OMP_NUM_THREADS=1 python -m benchmarks.linalg.growth [--only NAME] --json benchmarks/results/estimators.jsonl
    OMP_NUM_THREADS=1 python -m benchmarks.linalg.growth --larger FOLDER --json benchmarks/results/estimators.jsonl

`growth`: iterations are of a fixed number, so that a step's cost is seen and not how many are needed. Each size is a
process of its own (Linux): processor seconds of one thread, and what it adds to what it held with the data. The
exponents are slopes of straight lines through the logarithms, of memory without what is less than a MiB.

`larger`: a matrix in NumPy's format in FOLDER, removed afterwards, in a process whose heap and mappings of its own
(RLIMIT_DATA) may be no larger than the limit; it is read part by part through Dask.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from benchmarks.common.rows import Rows, add_option
from benchmarks.estimators.tall import memory
from eckart.estimators.completion_altmin import AlternatingCompletion
from eckart.estimators.cp import outer_products
from eckart.estimators.cur import CURDecomposition
from eckart.estimators.rpca_ialm import RobustPCA
from eckart.estimators.soft_impute import SoftImpute
from eckart.estimators.tucker import core_and_bases
from eckart.kernels import GaussianProcess, Grid, KernelRidge
from eckart.linalg.tall_svd import tall_svd
from eckart.sketching.streaming_eigenvector import top_eigenvector

Call = Callable[[], Any]


@dataclass(frozen=True)
class Growth:
    """A method by one size, the others held.

    Attributes:
        method: its name in the register, or the function's.
        by: which size.
        held: the others, in words.
        sizes: of `by`, ascending.
        make: the data of a size, and the call that is measured.
        expected: exponent of time that operations and passes let expect.
    """

    method: str
    by: str
    held: str
    sizes: Sequence[float]
    make: Callable[[Any], Call]
    expected: float


def low(n: int, p: int, rank: int, noise: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p)) + noise * rng.standard_normal((n, p))


def ratings(n: int, p: int, share: float) -> sparse.csr_array:
    """So large a share of a table of rank 5, at places drawn with repetition."""
    rng = np.random.default_rng(0)
    count = round(n * p * share)
    row, column = rng.integers(n, size=count), rng.integers(p, size=count)
    left, right = rng.standard_normal((n, 5)), rng.standard_normal((p, 5))
    values = (left[row] * right[column]).sum(axis=1) + 0.1 * rng.standard_normal(count)
    return sparse.csr_array((values, (row, column)), shape=(n, p))


def completion(n: int = 4000, share: float = 0.1, rank: int = 10, solver: Any = "cholesky") -> Call:
    x = ratings(n, 500, share)
    return lambda: AlternatingCompletion(rank, solver=solver, tol=0, max_iter=4, random_state=0).fit(x)


def imputed(n: int = 2000, share: float = 0.1, rank: int = 10, penalty: float = 20.0) -> Call:
    x = ratings(n, 500, share)
    return lambda: SoftImpute(penalty, max_rank=rank, tol=0, max_iter=15, random_state=0).fit(x)


def robust(n: int, p: int, rank: int = 10) -> Call:
    x = low(n, p, rank, 0.0)
    x[np.random.default_rng(1).random(x.shape) < 0.05] = 30
    return lambda: RobustPCA(tol=0, max_iter=20, random_state=0).fit(x)


def picked(n: int = 4000, rank: int = 20) -> Call:
    x = low(n, 400, rank)
    return lambda: CURDecomposition(rank, random_state=0).fit(x)


def cube(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    truth = np.einsum("ar,br,cr->abc", *(rng.standard_normal((n, 5)) for _ in range(3)), optimize=True)
    found: np.ndarray = truth + 0.1 * rng.standard_normal((n, n, n))
    return found


def products(entries: int, rank: int = 5) -> Call:
    x = cube(round(entries ** (1 / 3)))
    return lambda: outer_products(x, rank, tolerance=0, max_iter=5, generator=0)


def bases(entries: int, rank: int = 5) -> Call:
    x = cube(round(entries ** (1 / 3)))
    return lambda: core_and_bases(x, rank, tolerance=0, max_iter=3)


def tall(n: int = 20_000, p: int = 100) -> Call:
    x = np.random.default_rng(0).standard_normal((n, p))
    return lambda: tall_svd(x, 10)


def ridge(n: int = 8000, count: int = 200) -> Call:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 8))
    y = np.sin(x).sum(axis=1) + 0.1 * rng.standard_normal(n)
    return lambda: KernelRidge(solver="subset", n_components=count, alpha=1e-2, gamma=0.05, random_state=0).fit(x, y)


def process(n: int) -> Call:
    side = np.linspace(-3, 3, round(n**0.5))
    x = Grid(side, side).array().numpy()
    y = np.sin(2 * x[:, 0]) * np.cos(3 * x[:, 1]) + 0.1 * np.random.default_rng(0).standard_normal(len(x))
    return lambda: GaussianProcess(structure="kronecker", optimize=False).fit(x, y)


CUBES = (60**3, 90**3, 135**3, 200**3)
GROWTHS = (
    Growth("completion-altmin", "rows", "500 columns, 10 % seen, k 10", (1000, 2000, 4000, 8000), completion, 1),
    Growth("completion-altmin", "share seen", "2000 x 500, k 10", (0.05, 0.1, 0.2, 0.4),
           lambda s: completion(2000, s), 1),
    Growth("completion-altmin", "rank", "2000 x 500, 10 % seen", (10, 20, 40, 80),
           lambda k: completion(2000, rank=k), 2),
    Growth("completion-altmin, cg", "rank", "2000 x 500, 10 % seen", (10, 20, 40, 80),
           lambda k: completion(2000, rank=k, solver="cg"), 1),
    Growth("soft-impute", "rows", "500 columns, 10 % seen, k 10", (1000, 2000, 4000, 8000), imputed, 1),
    Growth("soft-impute", "share seen", "2000 x 500, k 10", (0.05, 0.1, 0.2, 0.4), lambda s: imputed(share=s), 1),
    Growth("soft-impute", "rank", "2000 x 500, 10 % seen", (10, 20, 40, 80), lambda k: imputed(rank=k, penalty=1.0), 1),
    Growth("rpca-ialm", "rows", "600 columns, rank 10", (600, 1200, 2400), lambda n: robust(n, 600), 1),
    Growth("rpca-ialm", "rows and columns", "rank 10", (600, 900, 1350), lambda n: robust(n, n), 2),
    Growth("cur", "rows", "400 columns, rank 20", (2000, 4000, 8000, 16000), picked, 1),
    Growth("cur", "rank", "4000 x 400", (10, 20, 40, 80), lambda k: picked(rank=k), 1),
    Growth("cp", "entries", "three modes, rank 5", CUBES, products, 1),
    Growth("cp", "rank", "135^3", (5, 10, 20, 40), lambda k: products(135**3, k), 1),
    Growth("tucker", "entries", "three modes, rank 5", CUBES, bases, 4 / 3),
    Growth("tall_svd", "rows", "100 columns", (10_000, 20_000, 40_000, 80_000), tall, 1),
    Growth("tall_svd", "columns", "20,000 rows", (50, 100, 200, 400), lambda p: tall(p=p), 2),
    Growth("kernel-ridge, subset", "rows", "200 of them, 8 columns", (2000, 4000, 8000, 16_000), ridge, 1),
    Growth("kernel-ridge, subset", "rows in the subset", "8000 rows", (50, 100, 200, 400),
           lambda k: ridge(count=k), 2),
    Growth("gaussian-process, grid", "rows", "two dimensions", (40**2, 80**2, 160**2), process, 3 / 2),
)  # fmt: skip


def _measured(make: Callable[[Any], Call], size: Any, found: Any) -> None:
    warnings.simplefilter("ignore")
    call = make(size)
    # What the data's making freed is given back, or it would be used again without being seen.
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, started = memory("VmRSS"), time.process_time()
    call()
    seconds, peak = time.process_time() - started, memory("VmHWM") - before
    again = [seconds]
    for _ in range(2):
        if seconds < 1:
            started = time.process_time()
            call()
            again.append(time.process_time() - started)
    found.put((min(again), peak))


def apart(target: Callable[..., None], *arguments: Any) -> Any:
    """What a function puts into the queue in a process of its own, which has all that is loaded."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=target, args=(*arguments, queue))
    child.start()
    while True:
        try:
            answer = queue.get(timeout=1)
            break
        except Exception as error:
            if not child.is_alive():
                raise SystemExit(f"the process ended with {child.exitcode}") from error
    child.join()
    return answer


def slope(sizes: Sequence[float], values: Sequence[float], least: float = 0.0) -> float | None:
    """Of a straight line through the logarithms of what is above `least`; None of fewer than two points."""
    kept = [(np.log(size), np.log(value)) for size, value in zip(sizes, values, strict=True) if value > least]
    return float(np.polyfit(*np.array(kept).T, 1)[0]) if len(kept) > 1 else None


def growth(rows: Rows, only: str | None, growths: Sequence[Growth] = GROWTHS) -> None:
    """Rows of those whose name has `only` in it."""
    for each in growths:
        what = {"part": "growth", "method": each.method, "by": each.by, "held": each.held}
        if (only and only not in each.method) or rows.get(what):
            continue
        seconds, peaks = zip(*(apart(_measured, each.make, size) for size in each.sizes), strict=True)
        found = {"sizes": list(each.sizes), "seconds": seconds, "mib": peaks, "expected": each.expected}
        ends = {"first": each.sizes[0], "last": each.sizes[-1], "last_seconds": seconds[-1], "last_mib": peaks[-1]}
        slopes = {"slope": slope(each.sizes, seconds), "mib_slope": slope(each.sizes, peaks, 1.0)}
        rows.add(what, found | ends | slopes)
        print(each.method, each.by, slopes, seconds, peaks, flush=True)


COLUMNS, PART, RANK = 512, 5000, 20


def written(file: Path, rows: int) -> None:
    """Rank 20 with values that fall to a tenth, in noise, part after part."""
    rng = np.random.default_rng(0)
    right = np.geomspace(1, 0.1, RANK)[:, None] * rng.standard_normal((RANK, COLUMNS))
    shape = (rows, COLUMNS)
    table = np.lib.format.open_memmap(file, mode="w+", dtype=np.float64, shape=shape)
    for at in range(0, rows, PART):
        part = rng.standard_normal((min(PART, rows - at), RANK)) @ right
        table[at : at + PART] = part + 0.05 * rng.standard_normal(part.shape)
    table.flush()


def _under(task: str, file: Path, limit: int, found: Any) -> None:
    import dask
    import dask.array

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (limit * 2**20, limit * 2**20))
    table = np.load(file, mmap_mode="r")
    blocks = [
        dask.array.from_delayed(dask.delayed(_part)(file, at, task), (min(PART, len(table) - at), COLUMNS), np.float64)
        for at in range(0, len(table), PART)
    ]
    x = dask.array.concatenate(blocks)
    size = table.nbytes / 2**20
    refused = None
    try:
        np.array(table)
    except MemoryError:
        refused = True
    started, clock = time.process_time(), time.perf_counter()
    with dask.config.set(scheduler="single-threaded"):
        if task == "tall_svd":
            answer = tall_svd(x, RANK)
            kept = {"first": float(answer.values[0]), "last": float(answer.values[-1])}
        elif task == "streaming-eigenvector":
            kept = {"first": float(np.linalg.norm(top_eigenvector(_parts(file, task), 20, generator=0).value))}
        else:
            fitted = AlternatingCompletion(5, 0.001, max_iter=3, random_state=0).fit(x)
            first, hidden = np.array(table[:PART]), ~_seen(0, PART)
            said = fitted.inverse_transform(fitted.embedding_[:PART])
            error = np.linalg.norm((said - first)[hidden]) / np.linalg.norm(first[hidden])
            kept = {"error": float(error), "sweeps": fitted.n_iter_}
    seconds, wall = time.process_time() - started, time.perf_counter() - clock
    heap = memory("VmData")
    found.put(kept | {"mib": size, "whole_refused": refused, "seconds": seconds, "wall": wall, "data_mib": heap})


def _seen(at: int, rows: int) -> np.ndarray:
    """A tenth of the entries of a part, the same each time it is read."""
    seen: np.ndarray = np.random.default_rng(at).random((rows, COLUMNS), np.float32) < 0.1
    return seen


def _part(file: Path, at: int, task: str) -> np.ndarray:
    # A mapping of its own for each part: pages of one that stays would count until the system wants them back.
    part = np.array(np.load(file, mmap_mode="r")[at : at + PART])
    if task == "completion-altmin":
        part[~_seen(at, len(part))] = np.nan
    return part


def _parts(file: Path, task: str) -> Any:
    rows = len(np.load(file, mmap_mode="r"))
    return (_part(file, at, task) for at in range(0, rows, PART))


def larger(rows: Rows, folder: Path, gigabytes: float, limit: int, only: str | None) -> None:
    count = round(gigabytes * 2**30 / (8 * COLUMNS) / PART) * PART
    file = folder / "eckart-larger.npy"
    try:
        written(file, count)
        for task in ("tall_svd", "streaming-eigenvector", "completion-altmin"):
            what = {"part": "larger", "method": task, "rows": count, "columns": COLUMNS, "limit_mib": limit}
            if (only and only not in task) or rows.get(what):
                continue
            found = apart(_under, task, file, limit)
            rows.add(what, found)
            print(what, found, flush=True)
    finally:
        file.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", help="methods whose name has this in it")
    parser.add_argument("--larger", type=Path, metavar="FOLDER", help="a matrix on disk instead, in this folder")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of that matrix")
    parser.add_argument("--limit", type=int, default=1024, help="MiB of memory that it may take")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("linalg.growth", options.json)
    if options.larger:
        larger(rows, options.larger, options.gigabytes, options.limit, options.only)
    else:
        growth(rows, options.only)


if __name__ == "__main__":
    main()
