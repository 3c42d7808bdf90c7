"""Turbo-VBI beside sums over all choices, quadrature of its priors, and plain tensors."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from eckart.parametrizations.turbo_vbi import RATIO, SHAPE, chain_log_odds, log_ratio, precision
from eckart.structures import Masked
from support import hard
from support.reparametrizing import optimizer_of, perceptron, train


@pytest.mark.parametrize("link", [0.0, 0.5, 0.9])
def test_messages_are_those_of_the_sum_over_all_choices(link: float) -> None:
    ratio, share = hard.normal(3, 7) * 3, 0.2
    step = {(a, b): link * (a == b) + (1 - link) * (share if b else 1 - share) for a in (0, 1) for b in (0, 1)}
    found = chain_log_odds(ratio, share, link)
    for row, told in zip(ratio, found, strict=True):
        total = torch.zeros(7, 2, dtype=torch.float64)
        for choices in itertools.product((0, 1), repeat=7):
            prior = (share if choices[0] else 1 - share) * math.prod(step[pair] for pair in itertools.pairwise(choices))
            for i, own in enumerate(choices):
                others = sum(float(row[j]) for j in range(7) if choices[j] and j != i)
                total[i, own] += prior * math.exp(others)
        torch.testing.assert_close(told, (total[:, 1] / total[:, 0]).log(), rtol=1e-10, atol=1e-10)


def test_choices_that_know_nothing_of_each_other_have_the_odds_of_their_share() -> None:
    odds = chain_log_odds(hard.normal(4, 9) * 50, 0.3, 0.0)
    torch.testing.assert_close(odds, torch.full_like(odds, math.log(0.3 / 0.7)))


def test_ratios_and_precisions_are_those_of_the_integrals() -> None:
    variance, active = 0.7, 0.4
    for w in (0.0, 0.05, 0.4, 3.0):
        evidence, moments = list[float](), list[float]()
        for rate in (SHAPE * variance / RATIO, SHAPE * variance):
            u = torch.linspace(-20, math.log(60 / rate), 20001, dtype=torch.float64)  # of rho, the logarithm
            prior = SHAPE * math.log(rate) - math.lgamma(SHAPE) + SHAPE * u - rate * u.exp()
            joint = (prior + 0.5 * u - 0.5 * math.log(2 * math.pi) - u.exp() * w * w / 2).exp()
            evidence.append(float(torch.trapezoid(joint, u)))
            moments.append(float(torch.trapezoid(joint * u.exp(), u)) / evidence[-1])
        square = torch.tensor([w * w], dtype=torch.float64)
        assert float(log_ratio(square, variance)) == pytest.approx(math.log(evidence[1] / evidence[0]), rel=1e-5)
        expected = active * moments[1] + (1 - active) * moments[0]
        assert float(precision(square, variance, torch.tensor([active]))) == pytest.approx(expected, rel=1e-5)


def test_larger_weights_are_likelier_and_more_so_among_large_ones() -> None:
    squares = torch.logspace(-6, 4, 50, dtype=torch.float64)
    assert (log_ratio(squares, 1.0).diff() > 0).all()
    alone = torch.full((1, 11), -2.0)
    alone[0, 5] = 1.0
    among = torch.full((1, 11), 1.0)
    assert chain_log_odds(among, 0.1, 0.8)[0, 5] > chain_log_odds(alone, 0.1, 0.8)[0, 5]


def test_a_matrix_step_by_step() -> None:
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(hard.normal(6, 8))
    made = eckart.reparametrize(net, "turbo-vbi", examples=40, infer_from=0.2, zero_from=0.6, seed=3)
    weight, optimizer = next(net.parameters()), torch.optim.SGD(net.parameters(), lr=0.05)
    hooks, (x, y) = made.schedule(optimizer, 10), (hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2))
    mean = weight.detach().clone()
    for done in range(10):
        hooks.before_step()
        state = {name.removeprefix("0."): t.clone() for name, t in hooks._schedule.state.items()}
        inferred = 2 <= done < 6
        assert torch.equal(weight, mean) != inferred
        (net(x) - y).square().mean().backward()
        slope = 2 * (x @ weight.T - y).T @ x / y.numel()
        torch.testing.assert_close(weight.grad, slope)
        hooks.after_backward()
        assert torch.equal(weight, mean)
        if inferred:
            slope = slope + min(1.0, 2 * (done - 1) / 4) / 40 * state["precision"] * mean
        torch.testing.assert_close(weight.grad, slope)
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        mean = mean - 0.05 * slope
        if done >= 5:
            gone = hooks._schedule.state["0.active"] < 0.5
            mean = mean.masked_fill(gone, 0)
        torch.testing.assert_close(weight.detach(), mean)
        mean = weight.detach().clone()
    kept = int((weight != 0).sum())
    made.finish()
    structure = net[0].structure
    assert isinstance(structure, Masked)
    assert structure.cost().parameters == kept < 48


def test_weights_that_nothing_needs_go_and_leave_whole_runs() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 40).double()
    y = x[:, 12:16] @ hard.normal(4, 3)
    net = nn.Sequential(nn.Linear(40, 3, bias=False)).double()
    made = eckart.reparametrize(net, "turbo-vbi", examples=2560, spread=1.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    hooks = made.schedule(optimizer, 400)
    for _ in range(400):
        hooks.before_step()
        (net(x) - y).square().mean().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
    found = made.structures["0"].to_dense() != 0
    assert not found[:, :12].any()
    assert not found[:, 16:].any()
    assert (net(x) - y).square().mean() < 1e-2 * y.square().mean()


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("parts", [(0.3, 0.7), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_short_runs_end_well(steps: int, parts: tuple[float, float]) -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "turbo-vbi", infer_from=parts[0], zero_from=parts[1])
    optimizer = optimizer_of(net)
    train(net, made.schedule(optimizer, steps), optimizer, steps)
    made.finish()
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_wrong_options_are_refused() -> None:
    for words, options in {
        r"share=1\.0 of the weights that are active is not in \(0, 1\)": {"share": 1.0},
        r"link=1\.0 is not in \[0, 1\)": {"link": 1.0},
        r"spread=0\.0 and examples=50000 are not both positive": {"spread": 0.0},
        r"spread=4\.0 and examples=0 are not both positive": {"examples": 0},
        r"infer_from=0\.8 and zero_from=0\.7 are no shares in this order": {"infer_from": 0.8},
    }.items():
        net = perceptron()
        with pytest.raises(Refused, match=words):
            eckart.reparametrize(net, "turbo-vbi", **options)
        assert isinstance(net[1], nn.Linear)
