"""What the benchmarks of parametrizations share: a loop that calls the hooks, pictures of clothes, low rank beside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.structures import low_rank

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""A seed -> inputs and targets, step after step."""
Loss = Callable[[Tensor, Tensor], Tensor]


def mlp(seed: int, hidden: Sequence[int] = (512, 512)) -> nn.Sequential:
    """784 pixels to 10 classes; the last layer is `head`."""
    torch.manual_seed(seed)
    sizes, net = [784, *hidden], nn.Sequential()
    net.add_module("flat", nn.Flatten())
    for i, (columns, out) in enumerate(pairwise(sizes)):
        net.add_module(f"linear{i}", nn.Linear(columns, out))
        net.add_module(f"relu{i}", nn.ReLU())
    net.add_module("head", nn.Linear(sizes[-1], 10))
    return net


def train(
    model: nn.Module,
    batches: Batches,
    steps: int,
    seed: int,
    *,
    loss: Loss = F.cross_entropy,
    rate: float = 1e-3,
    made: eckart.Reparametrization | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> float:
    """AdamW without decay, or another optimizer, under a cosine rate, gradients clipped to 1; processor seconds."""
    model.train()
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    hooks = made.schedule(optimizer, steps) if made is not None else None
    clock = time.process_time()
    for step, (x, y) in zip(range(steps), batches(seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / (0.05 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2
        if hooks is not None:
            hooks.before_step()
        loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if hooks is not None:
            hooks.after_backward()
        optimizer.step()
        if hooks is not None:
            hooks.after_step()
        optimizer.zero_grad()
    model.eval()
    return time.process_time() - clock


def shuffled(x: Tensor, y: Tensor, batch: int) -> Batches:
    """Batches without repeat, in another order in every pass."""

    def drawn(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(x), generator=generator)
            for index in order[: len(x) // batch * batch].split(batch):
                yield x[index], y[index]

    return drawn


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which inputs are classified rightly."""
    return torch.cat([model(part).argmax(-1) for part in x.split(1000)]) == y


def numbers(model: nn.Module) -> int:
    """Numbers in all parameters."""
    return sum(p.numel() for p in model.parameters())


def low_ranks(model: nn.Module, exclude: Sequence[str], sizes: dict[str, int], *, projected: bool, seed: int) -> None:
    """Two factors in the place of every matrix, with at most as many numbers as `sizes` says.

    Args:
        projected: the nearest ones; else drawn with the variance of the matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    for site in find_sites(model, exclude=exclude):
        out, columns = site.shape
        rank = max(1, round(sizes[site.name] / (out + columns)))
        if projected:
            structure = eckart.fit(site.weight.contiguous(), "svd", rank=rank)
            factors = [p.detach() for p in structure.parameters()]
            if len(factors) != 2 or factors[0].shape[-1] != rank:  # stored in another form of the same rank
                u, s, vh = torch.linalg.svd(site.weight.double(), full_matrices=False)
                factors = [(u[:, :rank] * s[:rank].sqrt()).float(), (s[:rank].sqrt()[:, None] * vh[:rank]).float()]
        else:
            each = (float(site.weight.square().mean()) / rank) ** 0.25
            factors = [torch.randn(shape, generator=generator) * each for shape in ((out, rank), (rank, columns))]
        replace(model, site, low_rank(*factors))
