"""What it costs to start an adapter from the singular vectors of a 135M language model, here and in PEFT.

All linear maps of smollm2 but the head, float32. The arms take turns on one model in one process; seconds are those of
the CPU, for the whole call that puts the adapter into the model, medians of `--rounds`. "start" is that without what
the same call takes for plain LoRA. Peak memory is what the call adds at its largest (Linux). The residual is that of
the frozen part, `||W - s B A||_F`, as an excess over the least possible; the angle is the largest between the space of
B, or of A, and that of the exact singular vectors.

The second table is of the decompositions alone, matrix by matrix, which take turns on each.

    python -m benchmarks.adapters.starts --rounds 3
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from eckart.linalg.truncated_svd import truncated_svd
from eckart.models.sites import linear_layers
from eckart.models.transformers import load_model

Factors = dict[str, tuple[Tensor, Tensor]]
STATUS = Path("/proc/self/status")


def exact(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The exact leading left and right singular vectors, and the least residual."""
    w = weight.double()
    flat = w.shape[0] <= w.shape[1]
    values, vectors = torch.linalg.eigh(w @ w.T if flat else w.T @ w)
    one = vectors[:, -rank:]
    other = torch.linalg.qr((w.T if flat else w) @ one).Q
    left, right = (one, other) if flat else (other, one)
    return left.float(), right.float(), float(values[:-rank].clamp_min(0).sum().sqrt())


def sine(found: Tensor, space: Tensor) -> float:
    """Of the largest angle between the range of `found` (n, r) and that of the orthonormal `space`."""
    q, space = torch.linalg.qr(found.double()).Q, space.double()
    return min(1.0, float(torch.linalg.matrix_norm(q - space @ (space.T @ q), 2)))


def memory(word: str) -> int | None:
    """A line of the system's account of this process, bytes."""
    if not STATUS.is_file():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(word))
    return 1024 * int(line.split()[1])


def in_peft(start: bool | str, rank: int) -> Callable[[nn.Module], tuple[Factors, Callable[[], Any]]]:
    def run(model: nn.Module) -> tuple[Factors, Callable[[], Any]]:
        names = list(linear_layers(model))
        words: dict[str, Any] = {"r": rank, "lora_alpha": rank, "target_modules": names, "init_lora_weights": start}
        made: Any = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **words))
        found: Factors = {}
        for name in names:
            layer = made.get_submodule(f"base_model.model.{name}")
            found[name] = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        return found, made.unload

    return run


def in_eckart(method: str, rank: int) -> Callable[[nn.Module], tuple[Factors, Callable[[], Any]]]:
    def run(model: nn.Module) -> tuple[Factors, Callable[[], Any]]:
        adapter = eckart.adapt(model, method, rank=rank)
        found: Factors = {}
        for name, path in adapter.paths.items():
            left, right = path.parameters()
            found[name] = left, right
        return found, adapter.remove

    return run


def quality(weight: Tensor, left: Tensor, right: Tensor, best: tuple[Tensor, Tensor, float]) -> tuple[float, float]:
    """The excess of the residual, and the sine of the largest angle, of factors (out, r) and (r, in)."""
    rest = weight.double() - left.detach().double() @ right.detach().double()
    angles = sine(left.detach(), best[0]), sine(right.detach().T, best[1])
    return float(rest.norm()) / best[2] - 1, max(angles)


def qualities(found: Sequence[tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Median and largest of the excess and of the sine."""
    columns = zip(("excess", "sine"), zip(*found, strict=True), strict=True)
    return {name: {"median": statistics.median(values), "largest": max(values)} for name, values in columns}


def line(name: str, numbers: str, found: Sequence[tuple[float, float]]) -> str:
    """A row of a table: quantiles of the two qualities over the matrices."""
    levels = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)
    cells = ""
    for column in torch.tensor(found, dtype=torch.float64).T:
        cells += "   " + "".join(f"{value:9.1e}" for value in torch.quantile(column, levels).tolist())
    return f"{name:>32}{numbers}{cells}"


def heading(words: str) -> str:
    three = f"{'median':>9}{'90 %':>9}{'max':>9}"
    return f"{words:>57}   {'residual: excess':>27}   {'largest angle: sine':>27}\n{'':>57}   {three}   {three}"


def decompositions(
    weights: dict[str, Tensor], best: dict[str, tuple[Tensor, Tensor, float]], rank: int, rows: Rows
) -> None:
    """Prints the second table, and keeps its rows."""

    def ours(tolerance: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def run(weight: Tensor) -> tuple[Tensor, Tensor]:
            u, s, vh = truncated_svd(weight, rank, tolerance=tolerance, generator=torch.Generator().manual_seed(0))
            return u * s, vh

        return run

    def theirs(iterations: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def run(weight: Tensor) -> tuple[Tensor, Tensor]:
            u, s, v = torch.svd_lowrank(weight, rank, niter=iterations)
            return u * s, v.T

        return run

    arms = {f"`torch.svd_lowrank`, niter {n}": theirs(n) for n in (4, 16)}
    arms |= {f"`truncated_svd`, tolerance 1e-{digits}": ours(10.0**-digits) for digits in (3, 6, 8)}
    seconds: dict[str, float] = defaultdict(float)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, weight in weights.items():
        for arm, run in arms.items():
            clock = time.process_time()
            left, right = run(weight)
            seconds[arm] += time.process_time() - clock
            found[arm].append(quality(weight, left, right, best[name]))
    print("\n" + heading("CPU s"))
    for arm, values in found.items():
        what = {"part": "decompositions", "rank": rank, "model": "smollm2", "arm": arm}
        rows.add(what, {"seconds": seconds[arm], **qualities(values)})
        print(line(arm, f"{seconds[arm]:25.2f}", values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-exact", action="store_true", help="leave out PEFT's exact pissa, which takes longest")
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("adapters.starts", arguments.json)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rank = arguments.rank
    model, _ = load_model("smollm2", dtype=torch.float32)
    linears = {name: layer for name, layer in linear_layers(model).items() if "lm_head" not in name}
    weights = {name: layer.get_parameter("weight").detach().clone() for name, layer in linears.items()}
    best = {name: exact(weight, rank) for name, weight in weights.items()}
    arms: dict[str, Callable[[nn.Module], tuple[Factors, Callable[[], Any]]]] = {
        "peft lora": in_peft(True, rank),
        "eckart lora": in_eckart("lora", rank),
        "peft pissa": in_peft("pissa", rank),
        "peft pissa_niter_4": in_peft("pissa_niter_4", rank),
        "peft pissa_niter_16": in_peft("pissa_niter_16", rank),
        "eckart pissa": in_eckart("pissa", rank),
        "peft olora": in_peft("olora", rank),
        "eckart olora": in_eckart("olora", rank),
    }
    if arguments.skip_exact:
        del arms["peft pissa"]
    seconds: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, int] = {}
    found: dict[str, list[tuple[float, float]]] = {}
    for turn in range(arguments.rounds):
        for arm, run in arms.items():
            if STATUS.is_file():
                Path("/proc/self/clear_refs").write_text("5")
            before = memory("VmRSS")
            torch.manual_seed(turn)
            clock = time.process_time()
            factors, undo = run(model)
            seconds[arm].append(time.process_time() - clock)
            if before is not None:
                peaks[arm] = max(peaks.get(arm, 0), (memory("VmHWM") or 0) - before)
            if turn == 0:
                found[arm] = [quality(weights[name], *factors[name], best[name]) for name in weights]
            undo()
            with torch.no_grad():
                for name, layer in linears.items():
                    layer.get_parameter("weight").data = weights[name].clone()
    print(
        f"torch {torch.__version__}, peft {peft.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s)"
    )
    print(f"smollm2, {len(weights)} matrices, float32, rank {rank}, {arguments.rounds} round(s)\n")
    print(heading("CPU s    start  peak MB"))
    for arm, times in seconds.items():
        middle = statistics.median(times)
        plain = statistics.median(seconds[f"{arm.split()[0]} lora"])
        what = {"part": "calls", "rank": rank, "model": "smollm2", "arm": arm}
        rows.add(what, {"seconds": middle, "start": middle - plain, "peak": peaks.get(arm), **qualities(found[arm])})
        numbers = f"{middle:8.2f}{middle - plain:9.2f}{peaks.get(arm, 0) / 1e6:8.0f}"
        print(line(arm, numbers, found[arm]))
    decompositions(weights, best, rank, rows)


if __name__ == "__main__":
    main()
