"""Muon: its polynomial on singular values, torch's own beside it, and what does not change it."""

from __future__ import annotations

import pytest
import torch

from eckart.optim.muon import Muon, newton_schulz
from support.stepping import drawn, rotation, stepped


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (1, 7), (7, 1)])
def test_the_iteration_is_a_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = drawn(*shape)[0]
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(newton_schulz(matrix), u * s @ vt)
    assert torch.equal(newton_schulz(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_it_goes_the_way_of_torch_in_bfloat16(adjust: str, nesterov: bool) -> None:
    weight, grads = drawn(12, 8)
    weight, grads = weight.float(), [g.float() for g in grads]
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    parameter = torch.nn.Parameter(weight.clone())
    torchs = torch.optim.Muon([parameter], adjust_lr_fn=adjust, **options)
    for place, grad in zip(
        stepped(Muon, weight, grads, adjust=adjust, dtype="bfloat16", **options), grads, strict=True
    ):
        parameter.grad = grad
        torchs.step()
        torch.testing.assert_close(place, parameter.detach(), rtol=1e-3, atol=1e-3)


def test_bases_turn_it_and_the_scale_of_a_loss_does_not_matter() -> None:
    weight, grads = drawn(6, 9)
    left, right = rotation(6), rotation(9)
    plain = stepped(Muon, weight, grads, weight_decay=0.0)[-1]
    turned = stepped(Muon, left @ weight @ right, [left @ g @ right for g in grads], weight_decay=0.0)[-1]
    torch.testing.assert_close(turned, left @ plain @ right)
    torch.testing.assert_close(stepped(Muon, weight, [1e-30 * g for g in grads], weight_decay=0.0)[-1], plain)
