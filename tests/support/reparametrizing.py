"""Small networks whose matrices train as structures, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart.parametrizations.contract import PARAMETRIZATIONS

CONVOLUTIONS_ONLY = {"apriori-conv"}
"""Parametrizations that leave linear layers as they are."""
OPTIONS: dict[str, dict[str, object]] = {
    "iss-p": {"keep": 0.5},
    "pst": {"rank": 4},
    "kronecker": {"blocks": 2, "keep": 0.6},
    "sltrain": {"keep": 0.7, "delta": 0.1},
    "rigl": {"keep": 0.5, "every": 5},
    "set": {"keep": 0.5, "every": 5},
    "nm-gradient-flow": {"n": 2, "m": 4},
    "sr-ste": {"n": 2, "m": 4},
    "sst": {"rank": 3, "every": 4},
    "maestro": {"every": 4},
    "ssvi": {"keep": 0.5, "every": 5},
    "sparse-ift": {"every": 5},
    "dst-continual": {"keep": 0.5, "every": 5, "tasks": 2},
}
"""What a parametrization is told for networks as small as these."""


def perceptron(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 4)
        ).to(dtype)


def convolutional(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(12, 16, (3, 5), stride=2, padding="valid"),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(96, 4),
        ).to(dtype)


NETWORKS: dict[str, Callable[..., nn.Sequential]] = {"perceptron": perceptron, "convolutional": convolutional}


def networks(method: str) -> list[Callable[..., nn.Sequential]]:
    """The networks in which a parametrization finds matrices."""
    return [convolutional] if method in CONVOLUTIONS_ONLY else list(NETWORKS.values())


def pictures(dtype: torch.dtype = torch.float64, count: int = 48) -> tuple[Tensor, Tensor]:
    """Four kinds of pictures of 8 x 8 under noise."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(4, 1, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.arange(count) % 4
    return (kinds[y] + torch.randn(count, 1, 8, 8, generator=generator, dtype=torch.float64)).to(dtype), y


def made(model: nn.Module, method: str, **options: object) -> eckart.Reparametrization:
    return eckart.reparametrize(model, method, **{**OPTIONS.get(method, {}), **options})  # type: ignore[arg-type]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)


def train(
    model: nn.Module,
    hooks: eckart.StepHooks,
    optimizer: torch.optim.Optimizer,
    steps: int,
    batch: tuple[Tensor, Tensor] | None = None,
) -> list[float]:
    """The loss before each step."""
    x, y = pictures() if batch is None else batch
    losses = []
    for _ in range(steps):
        hooks.before_step()
        loss = F.cross_entropy(model(x), y)
        losses.append(float(loss.detach()))
        loss.backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
    return losses


def trained(method: str, network: Callable[..., nn.Sequential], steps: int = 30) -> eckart.Reparametrization:
    """A network that was trained so, to the end of the schedule."""
    model = network()
    result = made(model, method)
    optimizer = optimizer_of(model)
    train(model, result.schedule(optimizer, steps), optimizer, steps)
    return result


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two states hold the same, up to the last bits of float64 products."""
    return a.keys() == b.keys() and all(
        torch.allclose(a[name].double(), b[name].double(), rtol=1e-9, atol=1e-11) for name in a
    )


EVERY = sorted(PARAMETRIZATIONS)
