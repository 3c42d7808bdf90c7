"""DiffoRA: gates and paths learn in turn, and half of the paths stay."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import eckart
from eckart.adapters.diffora import RATE, chosen, leaves
from support.one_layer import IN, OUT, normal, one_layer, start, stirred


def test_the_path_is_a_low_rank_times_a_gate() -> None:
    path = start("diffora", normal(OUT, IN), 2).path
    stirred(path)
    b, gate, a = leaves(path)
    assert (b.shape, gate.shape, a.shape) == ((OUT, 2), (1, 1), (2, IN))
    torch.testing.assert_close(path.to_dense(), gate * (b @ a))
    x = normal(5, IN, seed=3)
    torch.testing.assert_close(path(x), gate * (x @ a.T @ b.T))


def trained(net: nn.Module, adapter: eckart.Adapter, steps: int) -> list[list[Tensor]]:
    """The leaves before the first and after every step of plain SGD."""
    x, y = normal(64, IN, seed=2), normal(64, OUT, seed=3)
    optimizer = torch.optim.SGD(adapter.trainable_parameters(), lr=0.5)
    adapter.plan(steps)
    seen = [[p.detach().clone() for p in adapter.trainable_parameters()]]
    for _ in range(steps):
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()
        adapter.step()
        seen.append([p.detach().clone() for p in adapter.trainable_parameters()])
    return seen


def test_steps_are_for_paths_and_gates_in_turn() -> None:
    net, adapter = one_layer("diffora")
    w, x, y = net[0].base.weight.detach(), normal(64, IN, seed=2), normal(64, OUT, seed=3)
    seen = trained(net, adapter, 20)
    logit = mean = square = 0.0
    b, gate, a = seen[0]
    for done in range(1, 9):
        error = 2 * (x @ (w + gate * b @ a).T - y) / y.numel()
        slope = error.T @ x
        if done % 2:
            b, a = b - 0.5 * gate * slope @ a.T, a - 0.5 * gate * b.T @ slope
        else:
            g = float(gate * (1 - gate) * (slope * (b @ a)).sum())
            mean, square, turn = 0.5 * mean + 0.5 * g, 0.999 * square + 0.001 * g * g, done // 2
            logit -= RATE * mean / (1 - 0.5**turn) / (square / (1 - 0.999**turn)) ** 0.5
            gate = torch.sigmoid(torch.tensor([[logit]]))
        if done == 8:  # two fifths of the steps: the one path there is stays, and takes its gate in
            a, gate = gate * a, torch.ones(1, 1)
        for found, expected in zip(seen[done], (b, gate, a), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(leaves[1], torch.ones(1, 1)) for leaves in seen[8:])
    assert not torch.equal(seen[-1][0], seen[8][0])


def test_what_helps_on_other_data_stays() -> None:
    """Of two paths into one sum, the one whose inputs tell of the outputs."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ways = nn.ModuleDict({name: nn.Linear(IN, OUT, bias=False) for name in ("noise", "signal")})

        def forward(self, noise: Tensor, signal: Tensor) -> Tensor:
            return self.ways["noise"](noise) + self.ways["signal"](signal)

    torch.manual_seed(0)
    net, rule = Two(), 0.3 * normal(OUT, 2, seed=1) @ normal(2, IN, seed=2)
    base = net.ways["signal"].weight.detach().clone()
    net.ways["noise"].weight.data.zero_()
    adapter = eckart.adapt(net, "diffora", rank=2)
    optimizer = torch.optim.AdamW(adapter.trainable_parameters(), lr=1e-2, weight_decay=0.0)
    adapter.plan(100)
    for step in range(100):
        noise, signal = normal(16, IN, seed=10 + 2 * step), normal(16, IN, seed=11 + 2 * step)
        optimizer.zero_grad()
        (net(noise, signal) - signal @ (base + rule).T).square().mean().backward()
        optimizer.step()
        adapter.step()
    gates = {name: float(leaves(path)[1].detach()) for name, path in adapter.paths.items()}
    assert gates == {"ways.noise": 0.0, "ways.signal": 1.0}


def test_what_was_chosen_stays_chosen_in_another_training(tmp_path: Path) -> None:
    net, adapter = one_layer("diffora")
    trained(net, adapter, 5)
    eckart.save_adapter(adapter, tmp_path / "adapter")
    adapter.remove()
    again = eckart.load_adapter(net, tmp_path / "adapter")
    seen = trained(net, again, 6)
    assert all(torch.equal(leaves[1], torch.ones(1, 1)) for leaves in seen)
    assert all(not torch.equal(before[0], after[0]) for before, after in pairwise(seen))


def test_half_of_every_layer_is_chosen() -> None:
    gates = {"a.0.q": 0.9, "a.0.k": 0.8, "a.0.v": 0.7, "a.1.q": 0.1, "a.1.k": 0.2, "head": 0.0, "b": 0.0}
    assert chosen(gates) == {"a.0.q", "a.0.k", "a.1.k", "head"}
    assert chosen(gates, 1.0) == set(gates)
