"""Convolutional networks: every method at one size after another, on two nets with real weights and a task each.

    python -m benchmarks.compressors.convolution --facenet DIR --lfw FILE --fashion DIR --cache resnet.safetensors

The first are RNet and ONet of MTCNN (Zhang et al. 2016), as published with facenet-pytorch, which tell faces from other
pictures: calibrated on one half of 100 faces and 100 others, judged on the other half. The second is a residual net of
0.3 M parameters, which this program trains on Fashion-MNIST in some minutes of one core and keeps in a file: calibrated
on 512 training images, judged on the 10000 test images. Parameters are shared out among all convolutions and linear
layers; for methods that store fewer bits of all of them (marked *) --keep-bits are shares of the bytes instead.

--facenet DIR    `facenet_pytorch/data` of the wheel: pip download --no-deps facenet-pytorch==2.6.0 (MIT)
--lfw FILE       `skimage/data/lfw_subset.npy` of the wheel: pip download --no-deps scikit-image==0.26.0 (BSD-3)
--fashion DIR    `usr/share/datasets/fashion-mnist` of the Debian package dataset-fashion-mnist (MIT)

Multiply-adds are counted by PyTorch's dispatcher as one image is run; those of structures that unpack their matrix at
every call are those of the dense one. Time ratios are medians over rounds in which the dense and the small net take
turns, above one where the small one is faster. Seconds are of the processor, for fitting, choosing and building.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import statistics as stats
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eckart.compressors.contract import METHODS
from eckart.jobs.compress.plan import apply, make_plan
from eckart.models.sites import find_sites
from eckart.statistics import Statistics, statistics_for

DEFAULT = "svd,kfac,gptq,sparsegpt,spatial-svd,tucker-2,cp,auto"


class Output(NamedTuple):
    """What a classifier returns; its gradients are those of labels drawn from these logits."""

    logits: Tensor


class Stage(nn.Module):
    """RNet (24 x 24) or ONet (48 x 48) up to its face classifier, from the table of the MTCNN paper."""

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], pools: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.pools = pools
        self.count = len(channels) - 1
        for i in range(self.count):
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels[i], channels[i + 1], kernels[i]))
            self.add_module(f"prelu{i + 1}", nn.PReLU(channels[i + 1]))
        n = self.count + 1
        self.add_module(f"dense{n}", nn.Linear(9 * channels[-1], hidden))
        self.add_module(f"prelu{n}", nn.PReLU(hidden))
        self.add_module(f"dense{n + 1}_1", nn.Linear(hidden, 2))

    def forward(self, x: Tensor) -> Output:
        for i in range(self.count):
            x = self.get_submodule(f"prelu{i + 1}")(self.get_submodule(f"conv{i + 1}")(x))
            if i < len(self.pools):
                x = F.max_pool2d(x, self.pools[i], 2, ceil_mode=True)
        n = self.count + 1
        # The weights were trained on column-major images.
        x = self.get_submodule(f"dense{n}")(x.permute(0, 3, 2, 1).flatten(1))
        return Output(self.get_submodule(f"dense{n + 1}_1")(self.get_submodule(f"prelu{n}")(x)))


STAGES = {
    "rnet": (24, ((3, 28, 48, 64), (3, 3, 2), (3, 3), 128)),
    "onet": (48, ((3, 32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2), 256)),
}


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is one of 1 x 1 where the number of channels changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.short = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.short(x))


class ResNet(nn.Module):
    """A stem of stride 2, three blocks of 32, 64 and 128 channels, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2))
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Output:
        return Output(self.head(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3))))


@dataclass
class Task:
    """A net, what it is calibrated on and what it is judged on."""

    name: str
    model: nn.Module
    calibration: list[Tensor]
    images: Tensor
    labels: Tensor


def face_tasks(facenet: Path, lfw: Path) -> list[Task]:
    pictures = torch.from_numpy(np.load(lfw)).float()[:, None]
    labels = (torch.arange(len(pictures)) < len(pictures) // 2).long()
    tasks = []
    for name, (size, arguments) in STAGES.items():
        model = Stage(*arguments).eval()
        weights = torch.load(facenet / f"{name}.pt", weights_only=True)
        # The heads for boxes and landmarks are left out.
        model.load_state_dict({key: weights[key] for key in model.state_dict()})
        x = F.interpolate(pictures, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        x = ((x * 255 - 127.5) / 128).expand(-1, 3, -1, -1).contiguous()
        tasks.append(Task(name, model, list(x[::2].split(25)), x[1::2], labels[1::2]))
    return tasks


def fashion(directory: Path, part: str) -> tuple[Tensor, Tensor]:
    def read(kind: str, header: int) -> np.ndarray:
        with gzip.open(directory / f"{part}-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    x = torch.from_numpy(read("images-idx3", 16).copy()).view(-1, 1, 28, 28).float()
    return (x - 72.9) / 90.0, torch.from_numpy(read("labels-idx1", 8).copy()).long()


def trained(x: Tensor, y: Tensor, epochs: int, seed: int) -> ResNet:
    """The net after so many passes over the images, each as it is or mirrored; SGD under a one-cycle rate."""
    torch.manual_seed(seed)
    model, batch = ResNet().to(memory_format=torch.channels_last), 128
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, epochs * steps)
    clock = time.process_time()
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            images = x[index]
            images = torch.where(torch.rand(len(index), 1, 1, 1) < 0.5, images, images.flip(-1))
            loss = F.cross_entropy(model(images).logits, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss:.3f}, {time.process_time() - clock:.0f} s", flush=True)
    return model.to(memory_format=torch.contiguous_format).eval()


def fashion_task(directory: Path, cache: Path, epochs: int, seed: int) -> Task:
    x, y = fashion(directory, "train")
    if cache.exists():
        model = ResNet().eval()
        model.load_state_dict(load_file(cache))
    else:
        model = trained(x, y, epochs, seed)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, cache)
    picked = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:512]
    return Task("resnet", model, list(x[picked].split(64)), *fashion(directory, "t10k"))


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch).logits for batch in images.split(500)])


def auc(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The area under the ROC curve and its standard error (Hanley and McNeil 1982)."""
    positive, negative = scores[labels == 1].double(), scores[labels == 0].double()
    wins = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative).double()
    a, m, n = float(wins.mean()), len(positive), len(negative)
    variance = a * (1 - a) + (m - 1) * (a / (2 - a) - a * a) + (n - 1) * (2 * a * a / (1 + a) - a * a)
    return a, max(0.0, variance / (m * n)) ** 0.5


def judged(task: Task, z: Tensor, dense: Tensor) -> str:
    """Accuracy, area under the curve of two classes, and divergence from the dense net, with standard errors."""
    right = (z.argmax(1) == task.labels).double()
    text = f"{100 * right.mean():6.2f} +- {100 * (right.var() / len(right)).sqrt():4.2f} "
    if z.shape[1] == 2:
        area, error = auc(z[:, 1] - z[:, 0], task.labels)
        text += f"{area:6.4f} +- {error:6.4f} "
    p, q = dense.double().log_softmax(1), z.double().log_softmax(1)
    kl = (p.exp() * (p - q)).sum(1)
    return text + f"{kl.mean():7.4f} +- {(kl.var() / len(kl)).sqrt():6.4f}"


def macs(model: nn.Module, image: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return counter.get_total_flops() // 2


@torch.no_grad()
def faster(dense: nn.Module, small: nn.Module, batch: Tensor, rounds: int) -> float:
    """The median over rounds of the time of the dense net over that of the small one."""
    ratios = []
    for turn in range(rounds + 1):
        seconds = {}
        for model in (dense, small) if turn % 2 else (small, dense):
            start = time.perf_counter()
            model(batch)
            seconds[id(model)] = time.perf_counter() - start
        ratios.append(seconds[id(dense)] / seconds[id(small)])
    return stats.median(ratios[1:])


def stored_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def run(task: Task, shares: Mapping[str, Sequence[float]], rounds: int, seed: int) -> None:
    """Prints the table of a task: for each method the shares of the size to keep."""
    sites = find_sites(task.model)
    needs = sorted({n for m in shares for n in METHODS.find(m).needs}, key=lambda need: need.value)
    clock = time.process_time()
    modules = {site.name: site.module for site in sites}
    statistics: dict[str, Statistics]
    statistics, _ = statistics_for(task.model, modules, needs, task.calibration, seed=seed)
    seconds = time.process_time() - clock
    expected = logits(task.model, task.images)
    totals = make_plan(task.model, sites, METHODS.find("svd"), {}).totals
    images = sum(map(len, task.calibration))
    print(
        f"\n{task.name}: {len(sites)} matrices, {totals['parameters']} parameters; calibrated on {images} images "
        f"({seconds:.1f} s of statistics), judged on {len(task.images)}"
    )
    area = f"{'AUC':>6}{'':11}" if expected.shape[1] == 2 else ""
    print(f"{'method':>12} {'keep':>5} {'acc. %':>6}{'':9} {area}{'KL':>7}{'':10} "
          f"{'params':>8} {'bytes':>8} {'k macs':>7} {'speed':>6} {'CPU s':>6}")  # fmt: skip
    whole = macs(task.model, task.images[:1])
    print(f"{'dense':>12} {1:>5.2f} {judged(task, expected, expected)} {totals['parameters']:>8} "
          f"{stored_bytes(task.model):>8} {whole / 1e3:>7.0f} {1:>6.2f}", flush=True)  # fmt: skip
    for name, keeps in shares.items():
        card = METHODS.find(name)
        clock = time.process_time()
        plan = make_plan(task.model, sites, card, statistics)
        plan.fit(errors=card.allocation != "uniform")
        fitted = time.process_time() - clock
        of = currency(name)
        for keep in keeps:
            clock = time.process_time()
            label = f"{name}{'*' if of == 'bytes' else ''}"
            try:
                choice = plan.choose(keep, of)
            except ValueError as error:
                print(f"{label:>12} {keep:>5.2f} {str(error)[:100]}", flush=True)
                continue
            small = copy.deepcopy(task.model)
            apply(small, plan, choice)
            spent = fitted + time.process_time() - clock
            row = judged(task, logits(small, task.images), expected)
            after = make_plan(small, [], card, {}).totals["parameters"]
            speed = faster(task.model, small, task.images[:64], rounds)
            print(f"{label:>12} {keep:>5.2f} {row} {after:>8} {stored_bytes(small):>8} "
                  f"{macs(small, task.images[:1]) / 1e3:>7.0f} {speed:>6.2f} {spent:>6.2f}", flush=True)  # fmt: skip


def currency(method: str) -> str:
    return "bytes" if METHODS.find(method).size == "bits" else "parameters"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facenet", type=Path, help="directory with rnet.pt and onet.pt")
    parser.add_argument("--lfw", type=Path, help="lfw_subset.npy")
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--cache", type=Path, default=Path("resnet.safetensors"), help="where the trained net is kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--methods", default=DEFAULT)
    parser.add_argument("--keep", default="0.9,0.8,0.7,0.6,0.5,0.3")
    parser.add_argument("--keep-bits", default="0.3,0.2,0.15,0.11")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if (options.facenet is None) != (options.lfw is None):
        parser.error("--facenet and --lfw go together")
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, seed {options.seed}")
    tasks = face_tasks(options.facenet, options.lfw) if options.facenet else []
    if options.fashion:
        tasks.append(fashion_task(options.fashion, options.cache, options.epochs, options.seed))
    if not tasks:
        parser.error("nothing to do: pass --facenet and --lfw, or --fashion")
    keeps = {"parameters": options.keep, "bytes": options.keep_bits}
    shares = {name: [*map(float, keeps[currency(name)].split(","))] for name in options.methods.split(",")}
    for task in tasks:
        run(task, shares, options.rounds, options.seed)


if __name__ == "__main__":
    main()
