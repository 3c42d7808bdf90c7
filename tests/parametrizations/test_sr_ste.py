"""SR-STE, step by step beside plain tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from eckart.structures import SemiSparse
from support import hard
from support.reparametrizing import perceptron


def test_gradients_go_straight_through_and_what_is_outside_is_pulled() -> None:
    x, y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    w = hard.normal(6, 8)
    with torch.no_grad():
        net[0].weight.copy_(w)
    made = eckart.reparametrize(net, "sr-ste", n=2, m=4, penalty=0.3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    hooks = made.schedule(optimizer, 6)

    def kept() -> torch.Tensor:
        groups = w.abs().view(6, 2, 4)
        return (groups >= groups.topk(2).values[..., -1:]).double().view(6, 8)

    for _ in range(6):
        hooks.before_step()
        (net(x) - y).square().sum().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        slope = 2 * (x @ (w * kept()).T - y).T @ x
        w = w - 0.01 * (slope + 0.3 * (1 - kept()) * w)
    torch.testing.assert_close(made.structures["0"].to_dense(), w * kept())
    made.finish()
    assert isinstance(made.structures["0"], SemiSparse)
    with pytest.raises(Refused, match="penalty=-1"):
        eckart.reparametrize(perceptron(), "sr-ste", penalty=-1.0)
