"""What it costs to start an adapter from the singular vectors of a 135M language model, here and in PEFT.

All linear maps of smollm2 but the head, float32. The arms take turns on one model in one process; seconds are those of
the CPU, for the whole call that puts the adapter into the model, medians of `--rounds`. "start" is that without what
the same call takes for plain LoRA. Peak memory is what the call adds at its largest (Linux). The residual is that of
the frozen part, `||W - s B A||_F`, as an excess over the least possible; the angle is the largest between the space of
B, or of A, and that of the exact singular vectors.

    python benchmarks/starts.py --rounds 3
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

import eckart
from eckart.models.hf import load_model
from eckart.models.sites import linear_layers

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
        config = peft.LoraConfig(
            r=rank, lora_alpha=rank, target_modules=names, init_lora_weights=start, task_type="CAUSAL_LM"
        )
        made: Any = peft.get_peft_model(model, config)  # type: ignore[arg-type]
        found = {}
        for name in names:
            layer = made.get_submodule(f"base_model.model.{name}")
            found[name] = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        return found, made.unload

    return run


def in_eckart(method: str, rank: int) -> Callable[[nn.Module], tuple[Factors, Callable[[], Any]]]:
    def run(model: nn.Module) -> tuple[Factors, Callable[[], Any]]:
        adapter = eckart.adapt(model, method, rank=rank)
        found = {}
        for name, path in adapter.paths.items():
            left, right = path.parameters()
            found[name] = left, right
        return found, adapter.remove

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-exact", action="store_true", help="leave out PEFT's exact pissa, which takes longest")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rank = arguments.rank
    model, _ = load_model("smollm2", dtype=torch.float32)
    linears = {name: layer for name, layer in linear_layers(model).items() if "lm_head" not in name}
    weights = {name: layer.weight.detach().clone() for name, layer in linears.items()}  # type: ignore[operator, union-attr]
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
    quality: dict[str, tuple[list[float], list[float]]] = {}
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
            if turn == 0 and "lora" not in arm.replace("olora", ""):
                excess, sines = [], []
                for name, (left, right) in factors.items():
                    u, v, least = best[name]
                    rest = weights[name].double() - left.detach().double() @ right.detach().double()
                    excess.append(float(rest.norm()) / least - 1)
                    sines.append(max(sine(left.detach(), u), sine(right.detach().T, v)))
                quality[arm] = excess, sines
            undo()
            with torch.no_grad():
                for name, layer in linears.items():
                    layer.weight.data = weights[name].clone()  # type: ignore[union-attr]
    print(
        f"torch {torch.__version__}, peft {peft.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s)"
    )
    print(f"smollm2, {len(weights)} matrices, float32, rank {rank}, {arguments.rounds} round(s)\n")
    print(f"{'':>45}{'residual: excess':>44}{'largest angle: sine':>34}")
    print(
        f"{'':>20}{'CPU s':>8}{'start':>8}{'peak MB':>9}"
        + f"{'median':>26}{'90 %':>9}{'max':>9}{'median':>16}{'90 %':>9}{'max':>9}"
    )
    for arm, times in seconds.items():
        middle = statistics.median(times)
        plain = statistics.median(seconds[f"{arm.split()[0]} lora"])
        line = f"{arm:>20}{middle:8.2f}{middle - plain:8.2f}{peaks.get(arm, 0) / 1e6:9.0f}"
        if arm in quality:
            levels = torch.tensor([0.5, 0.9, 1.0], dtype=torch.float64)
            for values, width in zip(quality[arm], (26, 16), strict=True):
                found = torch.quantile(torch.tensor(values, dtype=torch.float64), levels).tolist()
                line += f"{found[0]:{width}.1e}{found[1]:9.1e}{found[2]:9.1e}"
        print(line)


if __name__ == "__main__":
    main()
