"""Iterative soft shrinkage of a small super-resolution network, beside hard thresholding and one-shot pruning.

    python -m benchmarks.parametrizations.super_resolution --pictures DIR [--json FILE]

--pictures DIR   `skimage/data` of the PyPI package scikit-image (BSD-3)

An EDSR in small (a convolution to 24 channels, two residual blocks of two, one to 4 channels that become 2 x 2 pixels)
learns to double the sides of grey pictures that were halved by bicubic interpolation: 400 steps of 8 stretches of
24 x 24 pixels, the residue over bicubic interpolation, L1 loss. The four convolutions of the blocks keep a tenth of
their weights; the first and the last are left alone, as the authors do. PSNR on five pictures that were not trained on,
without a border of 4 pixels; differences are paired by picture and seed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import eckart
from benchmarks.common.rows import Rows, add_option
from benchmarks.parametrizations.training import train

TRAIN = [
    "astronaut.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "coins.png", "hubble_deep_field.jpg",
    "ihc.png", "grass.png", "gravel.png", "retina.jpg",
]  # fmt: skip
TEST = ["camera.png", "coffee.png", "brick.png", "moon.png", "clock_motion.png"]
STEPS, KEEP, BORDER = 400, 0.1, 4
ONE_SHOT = {"shrink": 1.0, "penalty_from": 0.7, "zero_from": 0.7}
ARMS: dict[str, dict[str, float] | None] = {
    "dense": None,
    "one shot by magnitude": ONE_SHOT,
    "hard thresholding": {"shrink": 0.0},
    "iss-p": {},
    "iss-p without the penalty": {"penalty_from": 0.7},
}


class Block(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.first(x)))
        return x + y


class Doubling(nn.Module):
    """Grey pictures of twice the height and width."""

    def __init__(self, seed: int, channels: int = 24) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.begin = nn.Conv2d(1, channels, 3, padding=1)
        self.blocks = nn.Sequential(Block(channels), Block(channels))
        self.end = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return enlarged(x) + F.pixel_shuffle(self.end(self.blocks(self.begin(x))), 2)


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


def halved(y: Tensor) -> Tensor:
    size = y.shape[-2] // 2, y.shape[-1] // 2
    small: Tensor = F.interpolate(y, size=size, mode="bicubic", antialias=True, align_corners=False)
    return (small * 255).round().clamp(0, 255) / 255


def read(file: Path) -> Tensor:
    """A grey picture (1, 1, height, width) in 0..1, of even sides, 512 at most."""
    picture = torch.from_numpy(np.asarray(Image.open(file).convert("L")).copy()).float() / 255
    height, width = (min(512, n) // 2 * 2 for n in picture.shape)
    return picture[None, None, :height, :width]


def psnr(model: nn.Module | None, pictures: list[Tensor]) -> Tensor:
    """Of each picture, in decibels."""
    found = []
    with torch.no_grad():
        for y in pictures:
            x = halved(y)
            error = ((enlarged(x) if model is None else model(x)).clamp(0, 1) - y)[..., BORDER:-BORDER, BORDER:-BORDER]
            found.append(-10 * error.square().mean().log10())
    return torch.stack(found).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("parametrizations.super_resolution", options.json)
    learn = [read(options.pictures / name) for name in TRAIN]
    tests = [read(options.pictures / name) for name in TEST]
    pairs = [(halved(y), y) for y in learn]

    def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)

        def draw(below: int) -> int:
            return int(torch.randint(below, (), generator=generator))

        while True:
            small, large = [], []
            for _ in range(8):
                x, y = pairs[draw(len(pairs))]
                top, left = draw(x.shape[-2] - 23), draw(x.shape[-1] - 23)
                small.append(x[0, :, top : top + 24, left : left + 24])
                large.append(y[0, :, 2 * top : 2 * top + 48, 2 * left : 2 * left + 48])
            turn = draw(4)
            yield torch.stack(small).rot90(turn, (2, 3)), torch.stack(large).rot90(turn, (2, 3))

    scores: dict[str, list[Tensor]] = {"bicubic": [psnr(None, tests)] * options.seeds}
    for seed in range(options.seeds):
        for name, told in ARMS.items():
            model = Doubling(seed)
            made = None
            if told is not None:
                made = eckart.reparametrize(model, "iss-p", include=["blocks.*"], keep=KEEP, **told)
            seconds = train(model, batches, STEPS, seed, loss=F.l1_loss, rate=2e-3, made=made)
            if made is not None:
                made.finish()
            scores.setdefault(name, []).append(psnr(model, tests))
            print(f"{name}, seed {seed}: {float(scores[name][-1].mean()):.3f} dB, {seconds:.0f} s", flush=True)
    beside = torch.stack(scores["iss-p"])
    for name, found in scores.items():
        each = torch.stack(found)
        change = (each - beside).flatten()
        what: dict[str, Any] = {
            "arm": name,
            "keep": KEEP,
            "steps": STEPS,
            "seeds": options.seeds,
            "pictures": len(TEST),
        }
        rows.add(
            what,
            {
                "psnr": float(each.mean()),
                "spread": statistics.stdev(each.mean(1).tolist()) if options.seeds > 1 else 0.0,
                "change": float(change.mean()),
                "change_stderr": float(change.std() / len(change) ** 0.5),
            },
        )


if __name__ == "__main__":
    main()
