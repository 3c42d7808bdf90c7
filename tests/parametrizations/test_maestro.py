"""Ordered dropout: it finds the SVD of a map and the PCA of data, ranks go, and the lasso's gradient is its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.maestro import factors, pull
from eckart.structures import Chain, Dense
from support import hard
from support.reparametrizing import optimizer_of, perceptron, train


def learned(x: Tensor, y: Tensor, steps: int = 500) -> tuple[Tensor, Tensor]:
    """U and V of a linear map that was trained on x -> y."""
    net = nn.Sequential(nn.Linear(x.shape[1], y.shape[1], bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(hard.normal(y.shape[1], x.shape[1], seed=7))
    made = eckart.reparametrize(net, "maestro", penalty=0.0, threshold=0.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    hooks = made.schedule(optimizer, steps)
    for _ in range(steps):
        hooks.before_step()
        (net(x) - y).square().sum(1).mean().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        rates.step()
    left, right = factors(made.structures["0"])
    return left.detach(), right.detach()


def test_of_a_linear_map_it_finds_the_svd() -> None:
    u, _, v = torch.linalg.svd(hard.normal(3, 4, seed=3), full_matrices=False)
    u = u * torch.tensor([4.0, 2.5, 1.0]).double()
    x = torch.linalg.qr(hard.normal(40, 4, seed=1)).Q * 40**0.5  # as uniform as 40 points can be
    left, right = learned(x, x @ (u @ v).T)
    for rank in range(1, 4):
        torch.testing.assert_close(left[:, :rank] @ right[:rank], u[:, :rank] @ v[:rank], rtol=0, atol=0.02)


def test_of_an_autoencoder_it_finds_the_principal_components() -> None:
    q = torch.linalg.qr(hard.normal(3, 3, seed=5)).Q
    x = torch.linalg.qr(hard.normal(40, 3, seed=1)).Q * 40**0.5 * torch.tensor([2.0, 1.4, 0.8]).double() @ q.T
    left, right = learned(x, x)
    for rank in range(1, 4):
        torch.testing.assert_close(left[:, :rank] @ right[:rank], q[:, :rank] @ q[:, :rank].T, rtol=0, atol=0.02)


def test_the_pull_is_the_gradient_of_the_lasso() -> None:
    factor = hard.normal(5, 4).requires_grad_()
    sum(factor[:, j:].norm() for j in range(4)).backward()
    torch.testing.assert_close(pull(factor, 0), factor.grad)
    torch.testing.assert_close(pull(factor.T, 1), factor.grad.T)
    assert not pull(torch.zeros(5, 4), 0).any()


def test_ranks_that_do_not_count_go_and_stay_away() -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "maestro", keep=0.4, cut_at=0.5, every=4, threshold=0.2)
    optimizer = optimizer_of(net)
    hooks = made.schedule(optimizer, 20)
    train(net, hooks, optimizer, 10)
    for each in made.structures.values():
        most = max(1, int(0.4 * each.shape[0] * each.shape[1] / sum(each.shape)))
        left, right = factors(each)
        assert not left[:, most:].any() and not right[most:].any()  # noqa: PT018
    train(net, hooks, optimizer, 10)
    made.finish()
    for each in made.structures.values():
        assert isinstance(each, Chain)
        assert each.cost().parameters <= 0.4 * each.shape[0] * each.shape[1]


def test_what_does_not_pay_is_dense_in_the_end_and_bad_options_are_refused() -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "maestro", penalty=0.0, threshold=0.0)
    optimizer = optimizer_of(net)
    train(net, made.schedule(optimizer, 2), optimizer, 2)
    made.finish()
    assert all(isinstance(each, Dense) for each in made.structures.values())
    for words, options in {
        "penalty=-1": {"penalty": -1.0},
        "threshold=1": {"threshold": 1.0},
        r"cut_at=2\.0 in 0\.\.1": {"cut_at": 2.0},
        "of='x' is none of": {"of": "x"},
    }.items():
        with pytest.raises(Refused, match=words):
            eckart.reparametrize(perceptron(), "maestro", **options)
