"""Softmax-free attention beside exact and other linear kinds: time and accuracy; and layers of random features.

    pip install nystrom-attention performer-pytorch
    OMP_NUM_THREADS=1 python -m benchmarks.layers.attention --json benchmarks/results/layers.jsonl

Time is of forward and backward passes of one layer of width 64 and 2 heads, one sequence, on one thread of a shared
machine, of the processor and the least of six. Accuracy is of a network of one attention block, a token for each of 49
patches of 4 x 4 of Fashion-MNIST (the Debian package dataset-fashion-mnist), trained on 2500 pictures. Random features
stand in the place of the trained hidden layer of 256 ReLU units on the same pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from eckart.layers.scalable_nn_kernels import RandomFeatureLinear, expected_error
from eckart.layers.soft import SoftmaxFreeAttention

Found = tuple[dict[str, Any], dict[str, Any]]
FASHION = Path("/usr/share/datasets/fashion-mnist")
WIDTH, HEADS = 64, 2


class Exact(nn.Module):
    """Softmax attention by PyTorch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        made: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return made


def _nystrom(landmarks: int = 49) -> nn.Module:
    from nystrom_attention import NystromAttention

    options = {"dim_head": WIDTH // HEADS, "heads": HEADS, "num_landmarks": landmarks, "residual": False}
    made: nn.Module = NystromAttention(WIDTH, **options)
    return made


def _performer() -> nn.Module:
    from performer_pytorch import SelfAttention

    made: nn.Module = SelfAttention(WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, causal=False)
    return made


ARMS: dict[str, Callable[[], nn.Module]] = {
    "softmax, PyTorch's own": Exact,
    "softmax-free, Cholesky": lambda: SoftmaxFreeAttention(WIDTH, HEADS, landmarks="conv"),
    "softmax-free, Newton as published": lambda: SoftmaxFreeAttention(WIDTH, HEADS, landmarks="conv", inverse="newton"),
    "nystrom-attention": _nystrom,
    "performer-pytorch": _performer,
}


def speed() -> Iterator[Found]:
    for tokens in (256, 1024, 4096):
        for arm, made in ARMS.items():
            torch.manual_seed(0)
            try:
                net = made()
            except ImportError as missing:
                print(missing)
                continue
            x, seconds = torch.randn(1, tokens, WIDTH, requires_grad=True), []
            for _ in range(6):
                begun = time.process_time()
                net(x).sum().backward()
                seconds.append(time.process_time() - begun)
            what = {"part": "speed", "method": "soft", "arm": arm, "tokens": tokens, "width": WIDTH, "heads": HEADS}
            yield what, {"milliseconds": 1e3 * min(seconds)}


class Classifier(nn.Module):
    """Patches, places, one attention block, the mean."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.patch, self.place = nn.Linear(16, WIDTH), nn.Parameter(0.02 * torch.randn(49, WIDTH))
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(F.unfold(x, 4, stride=4).mT) + self.place
        y = y + self.attention(self.first(y))
        made: Tensor = self.head((y + self.mlp(self.second(y))).mean(1))
        return made


def accuracy() -> Iterator[Found]:
    x, y = (t[:2500] for t in fashion(FASHION, "train"))
    new, answers = (t[:1000] for t in fashion(FASHION, "t10k"))
    arms: dict[str, Callable[[], nn.Module]] = {
        "softmax, PyTorch's own": Exact,
        "softmax-free, a convolution for 12 landmarks, as published": lambda: SoftmaxFreeAttention(
            WIDTH, HEADS, tokens=12, landmarks="conv"
        ),
        "softmax-free, 12 means": lambda: SoftmaxFreeAttention(WIDTH, HEADS, tokens=12),
        "nystrom-attention, 12 landmarks": lambda: _nystrom(12),
    }
    for arm, made in arms.items():
        found = []
        for seed in range(2):
            torch.manual_seed(seed)
            try:
                net = Classifier(made())
            except ImportError as missing:
                print(missing)
                break
            optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
            steps = 6 * len(x) // 50
            rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
            for _ in range(6):
                for part in torch.randperm(len(x)).split(50):
                    optimizer.zero_grad()
                    F.cross_entropy(net(x[part]), y[part]).backward()
                    optimizer.step()
                    rate.step()
            net.eval()
            with torch.no_grad():
                said = torch.cat([net(part).argmax(1) for part in new.split(100)])
            found.append(float((said == answers).float().mean()))
        if found:
            what = {"part": "accuracy", "method": "soft", "arm": arm, "tokens": 49, "epochs": 6, "train": len(x)}
            yield what | {"seeds": len(found)}, {"accuracy": float(np.mean(found)), "apart": max(found) - min(found)}


def features() -> Iterator[Found]:
    x, y = (t[:8000] for t in fashion(FASHION, "train"))
    new, answers = (t[:2000] for t in fashion(FASHION, "t10k"))
    x, new = x.flatten(1), new.flatten(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(6):
        for part in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            F.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
    linear: Any = net[0]
    some = x[:4000]

    @torch.no_grad()
    def said(hidden: Callable[[Tensor], Tensor]) -> dict[str, float]:
        truth, found = net[1](linear(new)), hidden(new)
        off = float((found - truth).norm() / truth.norm())
        return {"error": off, "accuracy": float((net[2](found).argmax(1) == answers).float().mean())}

    what: dict[str, Any] = {"part": "features", "method": "scalable-nn-kernels", "layer": "784 -> 256, ReLU"}
    yield {**what, "arm": "the layer itself", "numbers": 784 * 256}, said(lambda t: net[1](linear(t)))
    moment = (some.double().T @ some.double()) / len(some)
    weight = linear.weight.detach().double()
    vectors = torch.linalg.eigh(weight @ moment @ weight.T)[1]
    for m in (64, 256, 784):
        for method in ("published", "least-squares"):
            made = RandomFeatureLinear.from_linear(
                linear, "relu", some, m, method=method, generator=torch.Generator().manual_seed(1)
            )
            yield {**what, "arm": f"random features, {method}", "numbers": 256 * m}, said(made)
        rank = 256 * m // (784 + 256)
        top = vectors[:, -rank:].float()
        factored = {**what, "arm": "two factors nearest on inputs", "numbers": 256 * m}
        yield factored, said(lambda t, top=top: net[1]((linear(t) - linear.bias) @ top @ top.T + linear.bias))
    for length in (0.5, 1.0, 2.0):
        small = nn.Linear(64, 64).double()
        with torch.no_grad():
            small.weight.copy_(length * F.normalize(torch.randn(64, 64, dtype=torch.float64)))
            nn.init.zeros_(small.bias)
        points = length * F.normalize(torch.randn(500, 64, dtype=torch.float64))
        made = RandomFeatureLinear.from_linear(small, "cos", points, 512, method="published")
        fitted = RandomFeatureLinear.from_linear(small, "cos", points[:400], 64)
        truth = small(points).cos().detach()
        found = {"expected": expected_error(small, points, "cos", 512), "spread": float(truth.std())}
        found["error"] = float((made(points).detach() - truth).square().mean().sqrt())
        found["fitted"] = float((fitted(points[400:]).detach() - truth[400:]).square().mean().sqrt())
        yield {"part": "cosines", "method": "scalable-nn-kernels", "length": length, "features": 512, "d": 64}, found


PARTS: dict[str, Callable[[], Iterator[Found]]] = {"features": features, "speed": speed, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="all parts where it is left out")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("layers.attention", options.json)
    for part in options.only or PARTS:
        for what, found in PARTS[part]():
            print(what, found, flush=True)
            rows.add(what, found)


if __name__ == "__main__":
    main()
