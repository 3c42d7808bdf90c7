"""Convolutions of filters along one direction each, before training, on waves: at equal steps, numbers and time.

    python -m benchmarks.parametrizations.waves [--json FILE]

The wave equation u_tt = c^2 (u_xx + u_yy) on 32 x 32 points with fixed borders, by central differences (c dt / dx =
0.5), from one to three bumps at rest: 96 runs of 24 frames, every fourth step a frame, 64 to train on and 32 to judge.
A net of four convolutions of 5 x 5 reads three frames and gives the next, as a change of the last. The first
convolution stays dense, as it reads three channels. 300 steps of 16. Error: |found - next|^2 over |next - last|^2, the
mean over the runs that judge. `narrow` is a dense net of as many numbers as `apriori-conv`; `as long` is the dense net
stopped after as many processor seconds as `apriori-conv` takes (the least of several steps that take turns).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import numbers, train

SIDE, FRAMES, SEEN, EVERY, COURANT = 32, 24, 3, 4, 0.5
STEPS, BATCH, WIDTH, RATE = 300, 16, 16, 2e-3


def waves(count: int, seed: int) -> Tensor:
    """Runs (count, frames, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(SIDE, dtype=torch.float64) / (SIDE - 1)
    u = torch.zeros(count, SIDE, SIDE, dtype=torch.float64)
    for i in range(count):
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            x, y, width, height = torch.rand(4, generator=generator, dtype=torch.float64)
            bump = ((line[:, None] - 0.2 - 0.6 * y) ** 2 + (line - 0.2 - 0.6 * x) ** 2) / (0.05 + 0.1 * width) ** 2
            u[i] += (2 * height - 1) * torch.exp(-bump)
    border = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    border[1:-1, 1:-1] = True
    u = u * border
    before, frames = u, [u]
    for step in range(1, EVERY * (FRAMES - 1) + 1):
        laplacian = -4 * u
        for shift in (1, -1):
            laplacian = laplacian + u.roll(shift, 1) + u.roll(shift, 2)
        factor = COURANT**2 * (0.5 if step == 1 else 1.0)  # at rest: u(-dt) = u(dt)
        u, before = (2 * u - before + factor * laplacian) * border, u
        if step % EVERY == 0:
            frames.append(u)
    return torch.stack(frames, 1).float()


class Next(nn.Module):
    """Three frames to the next."""

    def __init__(self, seed: int, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(seed)
        widths = [SEEN, width, width, width, 1]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 5, padding=2) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, layer in enumerate(self.layers):
            y = layer(y) if i == 0 else layer(F.gelu(y))
        return x[:, -1:] + y


def pairs(runs: Tensor) -> tuple[Tensor, Tensor]:
    """All stretches of three frames, and the next of each."""
    stretches = runs.unfold(1, SEEN + 1, 1).movedim(-1, 2).flatten(0, 1)
    return stretches[:, :SEEN], stretches[:, SEEN:]


@torch.no_grad()
def error(model: nn.Module, runs: Tensor) -> Tensor:
    """Of each run."""
    found = []
    for run in runs:
        x, y = pairs(run[None])
        found.append((model(x) - y).square().sum() / (y - x[:, -1:]).square().sum())
    return torch.stack(found).double()


def seconds_a_step(models: list[nn.Module], x: Tensor, y: Tensor, rounds: int = 12) -> list[float]:
    least = [float("inf")] * len(models)
    for _ in range(rounds):
        for i, model in enumerate(models):
            clock = time.process_time()
            F.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
            least[i] = min(least[i], time.process_time() - clock)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("parametrizations.waves", options.json)
    runs = waves(96, 0)
    (x, y), judges = pairs(runs[:64]), runs[64:]

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            index = torch.randint(len(x), (BATCH,), generator=generator)
            yield x[index], y[index]

    def reparametrized(terms: int) -> Callable[[int], nn.Module]:
        def made(seed: int) -> nn.Module:
            model = Next(seed)
            eckart.reparametrize(model, "apriori-conv", terms=terms, seed=seed)
            return model

        return made

    def narrow(seed: int) -> nn.Module:
        width = max(w for w in range(1, WIDTH) if numbers(Next(0, w)) <= numbers(reparametrized(1)(0)))
        return Next(seed, width)

    arms: dict[str, Callable[[int], nn.Module]] = {
        "dense": Next,
        "apriori-conv": reparametrized(1),
        "apriori-conv, 3 terms": reparametrized(3),
        "dense, narrow": narrow,
        "dense, as long": Next,
    }
    least = dict(zip(arms, seconds_a_step([make(0) for make in arms.values()], x[:BATCH], y[:BATCH]), strict=True))
    scores: dict[str, list[Tensor]] = {}
    counts: dict[str, tuple[int, int]] = {}
    for seed in range(options.seeds):
        for name, make in arms.items():
            model = make(seed)
            steps = STEPS
            if name == "dense, as long":
                steps = max(1, round(STEPS * least["apriori-conv"] / least["dense"]))
            seconds = train(model, batches, steps, seed, loss=F.mse_loss, rate=RATE)
            scores.setdefault(name, []).append(error(model, judges))
            counts[name] = (numbers(model), steps)
            print(f"{name}, seed {seed}: {float(scores[name][-1].mean()):.5f}, {seconds:.0f} s", flush=True)
    beside = torch.stack(scores["apriori-conv"])
    for name, found in scores.items():
        each = torch.stack(found)
        change = (each - beside).flatten()
        what: dict[str, Any] = {"arm": name, "width": WIDTH, "seeds": options.seeds, "batch": BATCH, "rate": RATE}
        rows.add(
            what,
            {
                "error": float(each.mean()),
                "spread": statistics.stdev(each.mean(1).tolist()) if options.seeds > 1 else 0.0,
                "change": float(change.mean()),
                "change_stderr": float(change.std() / len(change) ** 0.5),
                "parameters": counts[name][0],
                "steps": counts[name][1],
                "step_ratio": least[name] / least["dense"],
            },
        )


if __name__ == "__main__":
    main()
