"""AdamS: Adam without a decay, and a pattern of 2 of 4 that comes about by itself."""

from __future__ import annotations

import warnings

import pytest
import torch

from eckart.optim.adam_s import AdamS, pattern
from support.stepping import drawn, stepped


def test_the_pattern_keeps_two_of_four_even_where_they_are_equal() -> None:
    weight = torch.tensor([[3.0, -4.0, 1.0, 0.0, 2.0, 2.0, 2.0, 2.0]])
    assert pattern(weight)[:, :4].tolist() == [[True, True, False, False]]
    assert int(pattern(weight)[:, 4:].sum()) == 2


def test_two_steps_written_out() -> None:
    weight, grads = drawn(3, 8, count=2)
    kept = pattern(weight)
    m = v = torch.zeros_like(weight)
    place = weight
    for step, grad in enumerate(grads, 1):
        share = step / 4
        m = 0.9 * m + 0.1 * grad
        moved = torch.where(kept, m, (1 - share) * m + share * 0.3 * place.sign())
        v = 0.999 * v + 0.001 * moved**2
        place = place - 0.01 * (moved / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(stepped(AdamS, weight, grads, lr=0.01, total=4, decay=0.3)[-1], place)


def test_it_shrinks_what_is_to_go_and_finish_sets_it_to_zero() -> None:
    torch.manual_seed(0)
    x, target = torch.randn(256, 16), torch.randn(8, 16)
    parameter = torch.nn.Parameter(0.1 * torch.randn(8, 16))
    optimizer = AdamS([parameter], lr=0.02, total=300, decay=0.05)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 300)
        loss = (x @ (parameter - target).T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    kept = pattern(parameter.detach())
    assert float(parameter.detach()[~kept].abs().median()) < 1e-3 < float(parameter.detach()[kept].abs().mean())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.finish()
    assert (parameter.detach().view(-1, 4) != 0).sum(1).tolist() == [2] * 32


@pytest.mark.parametrize(("total", "lr"), [(7500, 0.02), (30, 1e-5)])
def test_weights_that_did_not_decay_are_not_cut_off_without_a_word(total: int, lr: float) -> None:
    parameter = torch.nn.Parameter(torch.randn(8, 16, generator=torch.Generator().manual_seed(1)))
    optimizer = AdamS([{"params": [parameter], "lr": lr}], total=total)
    for _ in range(30):
        parameter.grad = parameter.detach() - 1
        optimizer.step()
    kept = optimizer.state[parameter]["matrix0"]["kept"]
    share = float((parameter.detach() * ~kept).norm() / parameter.detach().norm())
    with pytest.warns(UserWarning, match=f"has {share:.0%} of the norm .* after 30 steps of total={total}"):
        optimizer.finish()
