"""Models that change the outputs of their layers in place are measured as any other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eckart.statistics import collect
from support.statistics import ALL, assert_same


class Steps(nn.Module):
    """Linear layers whose outputs are changed, in place or not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(6, 6) for _ in range(3))
        self.inplace = inplace
        for seed, p in enumerate(self.parameters()):
            nn.init.normal_(p, generator=torch.Generator().manual_seed(seed))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        y = self.second(hidden)
        if self.inplace:
            y[:, 0] = 0
            F.relu(y, inplace=True)
        else:
            y = torch.relu(torch.cat([torch.zeros_like(y[:, :1]), y[:, 1:]], 1))
        z: Tensor = self.third(y)
        return z.mul_(2) if self.inplace else z * 2


def test_what_a_model_does_in_place_changes_nothing() -> None:
    found = []
    for inplace in (False, True):
        model = Steps(inplace)
        x = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(9))
        found.append(collect(model, dict(model.named_children()), ALL, [x]))
        assert all(entry.fisher_rows is not None for entry in found[-1].values())
    assert_same(found[1], found[0])
