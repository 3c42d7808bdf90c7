"""Tasks with entries of their own: what one learned is computed as before when others are over."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart.errors import Refused
from support.reparametrizing import perceptron, pictures, train


def biases_stay(net: torch.nn.Module) -> None:
    for name, p in net.named_parameters():
        p.requires_grad_(not name.endswith("bias"))


def act(made: eckart.Reparametrization, task: int) -> None:
    for each in made.structures.values():
        each.task.fill_(task)


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_a_task_is_computed_as_when_it_was_learned(growth: str) -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "dst-continual", tasks=3, keep=0.3, growth=growth, every=3)
    biases_stay(net)
    x, y = pictures()
    then: list[Tensor] = []
    drawn = {name: each.mask(0).clone() for name, each in made.structures.items()}
    for task in range(3):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
        losses = train(net, made.schedule(optimizer, 16), optimizer, 16, (x, y.roll(task)))
        assert losses[-1] < 0.8 * losses[0]
        then.append(net(x).detach())
        act(made, 0)  # nobody has to set it back
        torch.testing.assert_close(net(x).detach(), then[0], rtol=0, atol=0)
    for task in range(3):
        act(made, task)
        torch.testing.assert_close(net(x).detach(), then[task], rtol=0, atol=0)
    sizes = {name: each.shape[0] * each.shape[1] for name, each in made.structures.items()}
    for name, each in made.structures.items():
        masks = [each.mask(task) for task in range(3)]
        assert len({int(mask.sum()) for mask in masks}) == 1
        if sizes[name] > 200:
            assert not torch.equal(masks[0], drawn[name])  # it moved
        assert (masks[0] & masks[1]).any()  # shared as it is
    kept = sum(int(each.mask(0).sum()) for each in made.structures.values())
    assert kept == pytest.approx(0.3 * sum(sizes.values()), rel=0.01)
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(Refused, match="all 3 tasks that were announced have been learned"):
        made.schedule(optimizer, 2).before_step()


def test_wrong_options_are_refused() -> None:
    for words, options in {
        "tasks=0 must be at least 1": {"tasks": 0},
        "growth='unfired' is none of random, gradient": {"growth": "unfired"},
        "every=0": {"every": 0},
    }.items():
        with pytest.raises(Refused, match=words):
            eckart.reparametrize(perceptron(), "dst-continual", **options)
