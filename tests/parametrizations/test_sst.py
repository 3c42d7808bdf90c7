"""Sparse spectral training: enhanced gradients, what is drawn, what stays, and the new decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.contract import Layer
from eckart.parametrizations.sst import chosen, importance, sst, triplets
from eckart.structures import Dense
from support import hard

X, Y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)


def net_of(rank: int, every: int) -> tuple[nn.Module, eckart.Reparametrization]:
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(hard.normal(6, 8))
    return net, eckart.reparametrize(net, "sst", rank=rank, every=every)


def all_triplets(made: eckart.Reparametrization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rest, part = (triplets(each) for each in made.structures["0"].operands())
    u, s, v = (each.detach().clone() for each in rest)
    index = chosen(u)
    u[:, index], s[index], v[index] = (each.detach() for each in part)
    return u, s, v, index


def test_a_step_is_that_of_the_drawn_triplets_by_enhanced_gradients() -> None:
    net, made = net_of(rank=2, every=20)
    torch.testing.assert_close(made.structures["0"].to_dense(), hard.normal(6, 8))
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.01)
    hooks = made.schedule(optimizer, 20)
    for done in range(12):
        hooks.before_step()
        u, s, v, index = all_triplets(made)
        w = u * s @ v
        slope = 2 * (X @ w.T - Y).T @ X
        (net(X) - Y).square().sum().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        part = min(1.0, (done + 1) / 10)
        expected_u, expected_v = u.clone(), v.clone()
        expected_u[:, index] -= 0.01 * part * slope @ v[index].T
        expected_v[index] -= 0.01 * part * (slope.T @ u[:, index]).T
        now = all_triplets(made)
        torch.testing.assert_close(now[0], expected_u / expected_u.norm(dim=0))
        torch.testing.assert_close(now[2], expected_v / expected_v.norm(dim=1, keepdim=True))
        torch.testing.assert_close(now[1], (s - 0.01 * (u.T @ slope @ v.T).diagonal()).clamp_min(float(now[1].min())))
        assert torch.equal(now[3], index)


def test_other_triplets_are_drawn_and_after_a_round_the_decomposition_is_new() -> None:
    net, made = net_of(rank=2, every=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    hooks = made.schedule(optimizer, 20)
    seen = []
    for done in range(14):
        before = made.structures["0"].to_dense().detach()
        hooks.before_step()
        torch.testing.assert_close(made.structures["0"].to_dense(), before)  # as a matrix nothing changed
        u, _, v, index = all_triplets(made)
        if done % 2 == 0:
            seen.append(tuple(index.tolist()))
            assert not any(optimizer.state[p]["exp_avg"].any() for p in optimizer.state if p.grad is not None)
        if done in (6, 12):  # 6 triplets, 2 at a time
            torch.testing.assert_close(u.T @ u, torch.eye(6).double())
            torch.testing.assert_close(v @ v.T, torch.eye(6).double())
        (net(X) - Y).square().sum().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad(set_to_none=False)
    assert len(set(seen)) > 2
    train_on = made.structures["0"].to_dense().detach()
    for _ in range(6):
        hooks.before_step(), hooks.after_backward(), hooks.after_step()
    made.finish()
    assert isinstance(made.structures["0"], Dense)
    torch.testing.assert_close(made.structures["0"].to_dense(), train_on)


def test_chances_and_refusals() -> None:
    torch.testing.assert_close(importance(torch.tensor([3.0, 1.0])), torch.tensor([0.625, 0.375]).double())
    layer = Layer(hard.normal(6, 8), None, torch.Generator().manual_seed(0))
    trained = [p for p in sst(layer, rank=2).parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 2 * (6 + 8 + 1) + 6
    with pytest.raises(Refused, match=r"rank=9 is not in 1\.\.6"):
        sst(layer, rank=9)
    with pytest.raises(Refused, match="it is zero"):
        sst(Layer(torch.zeros(6, 8), None, torch.Generator()), rank=2)
