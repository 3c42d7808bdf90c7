"""Iterative soft shrinkage, step by step beside plain tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.structures import Masked
from support import hard
from support.reparametrizing import optimizer_of, perceptron, train


def run(options: dict[str, float], steps: int = 10) -> tuple[nn.Sequential, list[Tensor], list[Tensor]]:
    """A matrix under SGD: it, its entries after every step, and the gradients that the optimizer used."""
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(hard.normal(6, 8))
    made = eckart.reparametrize(net, "iss-p", **options)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    hooks = made.schedule(optimizer, steps)
    weight = next(net.parameters())
    x, y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)
    seen, gradients = [weight.detach().clone()], []
    for _ in range(steps):
        hooks.before_step()
        (net(x) - y).square().mean().backward()
        hooks.after_backward()
        gradients.append(weight.grad.clone())
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        seen.append(weight.detach().clone())
    made.finish()
    return net, seen, gradients


def slope(w: Tensor) -> Tensor:
    x, y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)
    return 2 * (x @ w.T - y).T @ x / y.numel()


def test_the_three_parts_of_training() -> None:
    net, seen, _ = run({"keep": 0.25, "shrink": 0.9, "penalty_from": 0.4, "zero_from": 0.7})
    w = seen[0]
    gone = torch.zeros(6, 8, dtype=torch.bool)
    for done in range(1, 11):
        g = slope(w)
        if 4 < done <= 7:
            g = g + 0.5 * (done - 4) / 3 * w * gone
        w = w - 0.05 * g
        if done <= 4:
            limit = w.abs().flatten().sort().values[48 - 12 - 1]
            gone = w.abs() <= limit
        if done < 4:
            w = torch.where(gone, 0.9 * w, w)
        if done >= 7:
            w = w * ~gone
        torch.testing.assert_close(seen[done], w)
    structure = net[0].structure
    assert isinstance(structure, Masked)
    assert structure.cost().parameters == int((seen[-1] != 0).sum()) == 12


def test_hard_thresholding_and_one_shot_are_among_its_options() -> None:
    _, seen, _ = run({"keep": 0.25, "shrink": 0.0})
    assert all(int((w != 0).sum()) == 12 for w in seen[1:5])
    _, seen, gradients = run({"keep": 0.25, "shrink": 1.0, "penalty_from": 0.7, "zero_from": 0.7})
    w = seen[0]
    for done in range(1, 7):
        torch.testing.assert_close(gradients[done - 1], slope(w))
        w = w - 0.05 * slope(w)
        torch.testing.assert_close(seen[done], w)
    assert int((seen[7] != 0).sum()) == 12


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("parts", [(0.5, 0.7), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_short_runs_end_with_just_the_share_that_is_kept(steps: int, parts: tuple[float, float]) -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "iss-p", keep=0.2, penalty_from=parts[0], zero_from=parts[1])
    optimizer = optimizer_of(net)
    train(net, made.schedule(optimizer, steps), optimizer, steps)
    for structure in made.structures.values():
        out, columns = structure.shape
        assert int((structure.to_dense() != 0).sum()) == round(0.2 * out * columns)


def test_wrong_shares_are_refused() -> None:
    for words, options in {
        r"keep=0 is not in \(0, 1\]": {"keep": 0},
        r"shrink=1\.5 is not in 0\.\.1": {"shrink": 1.5},
        r"penalty_from=0\.8 and zero_from=0\.7 are no shares in this order": {"penalty_from": 0.8},
    }.items():
        net = perceptron()
        with pytest.raises(Refused, match=words):
            eckart.reparametrize(net, "iss-p", **options)
        assert isinstance(net[1], nn.Linear)
