"""RigL: densities, and a move step by step beside plain tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations._sparse import density
from eckart.parametrizations.contract import Layer
from eckart.structures import Masked, Sparse
from support import hard
from support.reparametrizing import convolutional, optimizer_of, perceptron, pictures, train


def test_densities_of_erk_are_in_proportion_to_sizes_and_add_up() -> None:
    peers = ((300, 784), (100, 300), (10, 100), (64, 16, 3, 3))
    found = []
    for dims in peers:
        layer = Layer(torch.empty(dims[0], math.prod(dims[1:])), dims[2:] or None, torch.Generator(), peers)
        assert layer.dims == dims
        found.append(density(layer, 0.1, "erk"))
        assert density(layer, 0.1, "uniform") == 0.1
    sizes = [math.prod(dims) for dims in peers]
    assert sum(a * b for a, b in zip(found, sizes, strict=True)) == pytest.approx(0.1 * sum(sizes))
    raw = [sum(dims) / math.prod(dims) for dims in peers]
    assert found[2] == 1.0  # which could not take its part
    assert found[0] / found[1] == pytest.approx(raw[0] / raw[1])
    assert found[0] / found[3] == pytest.approx(raw[0] / raw[3])


def test_a_share_of_bytes_is_what_is_stored_in_the_end() -> None:
    for keep in (0.5, 0.1, 0.02):
        net = nn.Sequential(nn.Linear(256, 96, bias=False))
        made = eckart.reparametrize(net, "rigl", keep=keep, of="bytes")
        optimizer = optimizer_of(net)
        hooks = made.schedule(optimizer, 1)
        hooks.before_step(), hooks.after_backward(), hooks.after_step()
        made.finish()
        offsets = 2 * 97
        assert 0.98 * keep - 0.001 < (made.structures["0"].cost().bytes - offsets) / (4 * 256 * 96) <= keep + 0.001


def test_the_least_go_to_where_the_gradient_is_largest_and_are_forgotten() -> None:
    net = nn.Sequential(nn.Linear(10, 6, bias=False)).double()
    made = eckart.reparametrize(net, "rigl", keep=0.4, distribution="uniform", every=3, drop=0.5, until=1.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    hooks = made.schedule(optimizer, 8)
    structure = made.structures["0"]
    x, y = hard.normal(12, 10, seed=1), hard.normal(12, 6, seed=2)
    for done in range(1, 4):
        hooks.before_step()
        (net(x) - y).square().sum().backward()
        slope = 2 * (net(x) - y).T @ x
        places = structure.places.clone()
        hooks.after_backward()
        optimizer.step()
        values = structure.values.detach().clone()
        hooks.after_step()
        optimizer.zero_grad()
        if done < 3:
            assert torch.equal(places, structure.places)
    count = int(0.25 * (1 + math.cos(math.pi * 3 / 8)) * 24)
    least = values.abs().topk(count, largest=False).indices
    moved = (places != structure.places).any(0)
    assert set(moved.nonzero()[:, 0].tolist()) <= set(least.tolist())
    slope = slope.detach().abs()
    stays = torch.ones(24, dtype=torch.bool)
    stays[least] = False
    slope[tuple(places.long()[:, stays])] = -1
    best = slope.flatten().topk(count).indices
    now = structure.places.long()[0] * 10 + structure.places.long()[1]
    assert set(now[least].tolist()) == set(best.tolist())
    assert torch.equal(structure.values[stays], values[stays])
    assert not structure.values[least].any()
    for moment in ("exp_avg", "exp_avg_sq"):
        assert not optimizer.state[structure.values][moment][least].any()
        assert optimizer.state[structure.values][moment][stays].all()


@pytest.mark.parametrize("network", [perceptron, convolutional])
def test_places_stay_different_and_as_many(network: object) -> None:
    net = network()  # type: ignore[operator]
    made = eckart.reparametrize(net, "rigl", keep=0.3, every=2)
    before = {name: each.to_dense() != 0 for name, each in made.structures.items()}
    optimizer = optimizer_of(net)
    train(net, made.schedule(optimizer, 12), optimizer, 12)
    for name, each in made.structures.items():
        flat = each.places[0].long() * each.shape[1] + each.places[1].long()
        assert len(flat.unique()) == len(flat) == int(before[name].sum())
        assert each.watch is None
        assert len(flat) == before[name].numel() or not torch.equal(each.to_dense() != 0, before[name])
    made.finish()
    assert all(isinstance(each, Masked | Sparse) for each in made.structures.values())
    assert net(pictures()[0]).isfinite().all()


def test_wrong_options_are_refused() -> None:
    for words, options in {
        "distribution='er' is none of erk, uniform": {"distribution": "er"},
        "every=0 must be at least 1": {"every": 0},
        r"drop=0 is not in \(0, 1\]": {"drop": 0},
        r"keep=1\.5 is not in \(0, 1\]": {"keep": 1.5},
    }.items():
        with pytest.raises(Refused, match=words):
            eckart.reparametrize(perceptron(), "rigl", **options)
