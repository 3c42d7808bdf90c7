"""Convolutional networks with a task each: faces told from other pictures, and clothes (see `convolution.py`)."""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


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
    data: str
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
        tasks.append(Task(name, "faces of LFW", model, list(x[::2].split(25)), x[1::2], labels[1::2]))
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
    return Task("resnet", "Fashion-MNIST", model, list(x[picked].split(64)), *fashion(directory, "t10k"))
