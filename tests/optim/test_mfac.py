"""M-FAC: its product is that with the inverse of the Fisher matrix of the window, which is written out."""

from __future__ import annotations

import torch

from eckart.optim.mfac import MFAC
from support.stepping import drawn, stepped


def test_steps_written_out_while_the_window_fills_and_afterwards() -> None:
    weight, grads = drawn(3, 4, count=6)
    place = weight.flatten()
    for found, i in zip(stepped(MFAC, weight, grads, lr=0.1, window=4, damping=0.01), range(6), strict=True):
        seen = torch.stack([g.flatten() for g in grads[max(0, i - 3) : i + 1]])
        fisher = 0.01 * torch.eye(12).double() + seen.T @ seen / len(seen)
        place = place - 0.1 * torch.linalg.solve(fisher, grads[i].flatten())
        torch.testing.assert_close(found.flatten(), place)


def test_a_gradient_that_is_not_finite_does_not_stay_in_the_window() -> None:
    weight, grads = drawn(3, 4, count=2)
    parameter = torch.nn.Parameter(weight)
    optimizer = MFAC([parameter], window=4)
    for grad in (grads[0], torch.full_like(weight, float("nan"))):
        parameter.grad = grad
        optimizer.step()
    assert torch.isfinite(optimizer.state[parameter]["matrix0"]["gradients"]).all()
