"""SET: places are drawn among the free ones, all as likely."""

from __future__ import annotations

import torch

import eckart
from eckart.parametrizations._sparse import elsewhere
from support.reparametrizing import optimizer_of, perceptron, train


def test_new_places_are_free_ones_all_as_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    taken = torch.tensor([9, 0, 3, 4])
    found = torch.zeros(12)
    for _ in range(400):
        places = elsewhere(12, taken, 3, generator)
        assert len(places.unique()) == 3
        found[places] += 1
    assert not found[taken].any()
    free = found[found > 0]
    assert len(free) == 8
    assert (free - 150).abs().max() < 4 * (150 * 5 / 8) ** 0.5


def test_no_gradient_of_the_whole_matrix_is_asked_for() -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "set", keep=0.3, every=2)
    optimizer = optimizer_of(net)
    hooks = made.schedule(optimizer, 12)
    before = {name: each.places.clone() for name, each in made.structures.items()}
    for _ in range(4):
        hooks.before_step()
        assert all(each.watch is None for each in made.structures.values())
        net(torch.ones(2, 1, 8, 8).double()).sum().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
    assert any(not torch.equal(each.places, before[name]) for name, each in made.structures.items())
    train(net, hooks, optimizer, 8)
