"""A model of plain blocks, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from eckart.models.sites import model_cost
from support.tiny import VOCABULARY


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def measured(model: nn.Module) -> dict[str, int]:
    cost = model_cost(model)
    unique = {t.data_ptr(): t for t in model.state_dict().values()}
    return {
        "linear-parameters": cost["linear_parameters"],
        "parameters": cost["parameters"],
        "bytes": sum(t.numel() * t.element_size() for t in unique.values()),
        "macs": cost["macs_per_token"],
    }


def assert_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Blocks(nn.Module):
    """Three blocks, the sums of a residual network, if it is one, outside of them."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in range(3)])
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x) if self.residual else block(x)
        y: Tensor = self.head(x)
        return y
