"""LoRA: zero and uniform factors at the start, and the formula of the layer."""

from __future__ import annotations

import pytest
import torch

import eckart
from support.one_layer import IN, OUT, RANK, normal, start


def test_one_factor_is_zero_and_the_other_uniform() -> None:
    path = start("lora", normal(40, 400), rank=8).path
    b, a = (p.detach() for p in path.parameters())
    assert (b.shape, a.shape) == ((40, 8), (8, 400))
    assert not b.any()
    bound = 400**-0.5
    assert float(a.abs().max()) <= bound
    assert float(a.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert float(a.mean()) == pytest.approx(0, abs=0.05 * bound)


@pytest.mark.parametrize("alpha", [1.0, 8.0])
def test_the_layer_is_w_x_and_alpha_over_r_b_a_x(alpha: float) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(IN, OUT))
    weight, bias = net[0].weight.detach().clone(), net[0].bias.detach().clone()
    adapter = eckart.adapt(net, "lora", rank=RANK, alpha=alpha)
    b, a = adapter.trainable_parameters()
    with torch.no_grad():
        b.copy_(normal(OUT, RANK, seed=3))
    x = normal(5, IN, seed=4)
    torch.testing.assert_close(net(x), x @ weight.T + bias + alpha / RANK * (x @ a.T @ b.T))
