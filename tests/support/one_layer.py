"""One linear layer with an adapter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import eckart
from eckart.adapters.contract import ADAPTERS, Layer, Start
from eckart.jobs.adapt.adapter import Adapter
from eckart.statistics import Statistics

OUT, IN, RANK = 24, 36, 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def start(method: str, weight: Tensor, rank: int = RANK, scale: float = 1.0) -> Start:
    layer = Layer(weight, Statistics(), rank, scale, torch.Generator().manual_seed(0))
    return ADAPTERS[method].entry(layer)


def only(path: nn.Module, kind: type) -> nn.Module:
    (found,) = [module for module in path.modules() if isinstance(module, kind)]
    return found


def stirred(path: nn.Module, seed: int = 5) -> None:
    """Puts random numbers into whatever trains."""
    with torch.no_grad():
        for i, p in enumerate(path.parameters()):
            p.add_(normal(*p.shape, seed=seed + i)) if p.requires_grad else None


def one_layer(method: str, rank: int = RANK, shape: tuple[int, int] = (OUT, IN)) -> tuple[nn.Linear, Adapter]:
    net = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    with torch.no_grad():
        net[0].weight.copy_(normal(*shape, seed=1))
    return net, eckart.adapt(net, method, rank=rank)


def steps(
    net: nn.Module, adapter: Adapter, count: int, rate: float = 1e-2, each: Callable[[int], None] | None = None
) -> None:
    """Fits random outputs; `each` is called after the backward pass of each step."""
    x, y = normal(64, IN, seed=2), normal(64, OUT, seed=3)
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=rate, weight_decay=0.0)
    adapter.plan(count)
    for step in range(1, count + 1):
        optimizer.zero_grad()
        ((net(x) - y).square().mean() + adapter.regulariser()).backward()
        if each is not None:
            each(step)
        optimizer.step()
        adapter.step()
