"""SSVI: signal to noise, outputs that are drawn, the divergence's gradient, and what moves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

import eckart
from eckart.errors import Refused
from eckart.layouts.patches import Geometry
from eckart.parametrizations.ssvi import signal_to_noise
from eckart.structures import Gaussian, convolve
from support import hard
from support.reparametrizing import optimizer_of, perceptron, train


def gaussian() -> Gaussian:
    places = torch.stack((torch.arange(20) % 4, (7 * torch.arange(20)) % 9))
    return Gaussian(hard.normal(20), hard.normal(20, seed=1), places, out=4, columns=9)


def test_signal_to_noise_is_that_of_many_draws_and_finite_at_the_ends() -> None:
    mean, deviation = torch.tensor([0.0, 0.5, -2.0]), torch.tensor([1.0, 1.0, 0.7])
    drawn = (mean + deviation * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))).abs()
    torch.testing.assert_close(
        signal_to_noise(mean, deviation).float(), drawn.mean(0) / drawn.std(0), rtol=0.02, atol=0
    )
    ends = signal_to_noise(torch.tensor([1.0, 0.0, 1e8]), torch.tensor([1e-30, 1e-30, 1e-12]))
    assert torch.isfinite(ends).all()
    assert ends[1] == pytest.approx((2 / math.pi / (1 - 2 / math.pi)) ** 0.5)


def test_outputs_have_the_mean_and_variance_of_drawn_matrices() -> None:
    structure, x = gaussian(), hard.normal(9, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(structure(x), x @ structure.to_dense().T)
        structure.noise = torch.Generator().manual_seed(0)
        drawn = structure(x.expand(40_000, 9))
        row, column = structure.places.long()
        variance = torch.zeros(4, 9).double().index_put((row, column), structure.deviation**2) @ x**2
        torch.testing.assert_close(drawn.var(0), variance, rtol=0.05, atol=0)
        assert ((drawn.mean(0) - x @ structure.to_dense().T).abs() < 4 * (variance / 40_000).sqrt()).all()
        images = hard.normal(8000, 1, 5, 5, seed=4)[:1].expand(8000, 1, 5, 5)
        found = convolve(structure, images, Geometry((3, 3)))
        structure.noise = None
        mean = convolve(structure, images[:1], Geometry((3, 3)))
        patches = images[0, 0].unfold(0, 3, 1).unfold(1, 3, 1).reshape(9, 9)
        spread = (structure.variances() @ patches.T**2).view(4, 3, 3)
    torch.testing.assert_close(found.var(0), spread, rtol=0.15, atol=0)
    assert ((found.mean(0) - mean[0]).abs() < 5 * (spread / 8000).sqrt()).all()


def test_the_divergence_is_added_to_the_gradient() -> None:
    net = nn.Sequential(nn.Linear(9, 4, bias=False)).double()
    made = eckart.reparametrize(net, "ssvi", keep=0.5, examples=10)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    hooks = made.schedule(optimizer, 8)
    structure = made.structures["0"]
    for done in range(3):
        hooks.before_step()
        assert structure.noise is not None
        (0 * net(torch.ones(1, 9).double())).sum().backward()
        hooks.after_backward()
        assert structure.noise is None
        mean, spread = (each.detach().clone().requires_grad_() for each in (structure.values, structure.spread))
        deviation = nn.functional.softplus(spread)
        divergence = kl_divergence(Normal(mean, deviation), Normal(0.0, 0.005)).sum()
        (0.01 / 10 * min(1.0, 2 * done / 8) * divergence).backward()
        torch.testing.assert_close(structure.values.grad, mean.grad)
        torch.testing.assert_close(structure.spread.grad, spread.grad)
        hooks.after_step()
        optimizer.zero_grad()


def test_the_least_certain_move_and_begin_at_zero() -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "ssvi", keep=0.3, every=4, distribution="uniform")
    optimizer = optimizer_of(net)
    hooks = made.schedule(optimizer, 20)
    train(net, hooks, optimizer, 3)
    before = {name: each.places.clone() for name, each in made.structures.items()}
    train(net, hooks, optimizer, 1)
    for name, each in made.structures.items():
        moved = (each.places != before[name]).any(0)
        assert moved.any()
        assert not each.values[moved].any()
        spread = each.spread.detach()
        begun = each.values == 0
        torch.testing.assert_close(spread[moved], spread[~begun].mean().expand(int(moved.sum())))
        assert not optimizer.state[each.spread]["exp_avg"][moved].any()
    with pytest.raises(Refused, match="examples=0"):
        eckart.reparametrize(perceptron(), "ssvi", examples=0)
