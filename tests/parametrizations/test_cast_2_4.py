"""CAST: scales of half rows, the pull, and what is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.cast_2_4 import cast_2_4
from eckart.parametrizations.contract import Layer
from eckart.structures import SemiSparse
from support import hard
from support.reparametrizing import perceptron


def test_a_scale_for_each_half_row() -> None:
    layer = Layer(hard.normal(6, 16), None, torch.Generator())
    made = cast_2_4(layer)
    torch.testing.assert_close(made.to_dense(), layer.weight)
    with torch.no_grad():
        for part, factor in zip(made.operands(), (2.0, 3.0), strict=True):
            part.operands()[0].weight.copy_(factor * torch.arange(6))
    factors = torch.arange(6)[:, None] * torch.tensor([2.0] * 8 + [3.0] * 8)
    torch.testing.assert_close(made.to_dense(), layer.weight * factors)
    x = hard.normal(3, 16)
    torch.testing.assert_close(made(x), x @ (layer.weight * factors).T)
    assert len(cast_2_4(Layer(hard.normal(6, 12), None, torch.Generator())).operands()) == 2  # one scale a row


def test_the_gradient_of_what_goes_turns_into_a_pull() -> None:
    x, y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    w = hard.normal(6, 8)
    with torch.no_grad():
        net[0].weight.copy_(w)
    made = eckart.reparametrize(net, "cast-2-4", decay=0.5, scaling=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.003)
    hooks = made.schedule(optimizer, 25)
    for done in range(25):
        if done % 10 == 0:
            groups = w.abs().view(6, 2, 4)
            kept = (groups >= groups.topk(2).values[..., -1:]).view(6, 8)
        hooks.before_step()
        (net(x) - y).square().sum().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        slope, a = 2 * (x @ w.T - y).T @ x, done / 25
        w = w - 0.003 * torch.where(kept, slope, (1 - a) * slope + a * 0.5 * w.sign())
        if done < 24:
            torch.testing.assert_close(made.structures["0"].to_dense(), w)
    made.finish()
    assert isinstance(made.structures["0"], SemiSparse)
    groups = w.abs().view(6, 2, 4)
    left = w * (groups >= groups.topk(2).values[..., -1:]).view(6, 8)
    torch.testing.assert_close(made.structures["0"].to_dense(), left)
    made = eckart.reparametrize(again := perceptron(), "cast-2-4", pull=False)
    hooks = made.schedule(optimizer := torch.optim.SGD(again.parameters(), lr=0.0), 2)
    for _ in range(2):
        optimizer.zero_grad()
        hooks.before_step()
        again(torch.ones(2, 1, 8, 8).double()).sum().backward()
        gradients = [p.grad.clone() for p in again.parameters()]
        hooks.after_backward()
        assert all(torch.equal(p.grad, g) for p, g in zip(again.parameters(), gradients, strict=True))
        hooks.after_step()
    with pytest.raises(Refused, match="decay=-1"):
        eckart.reparametrize(perceptron(), "cast-2-4", decay=-1.0)
