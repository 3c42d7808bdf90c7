"""AuON: it is SGD, or SGD of a fixed length."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from eckart.optim.auon import AuON, cosh_root
from support.stepping import drawn, stepped


@pytest.mark.parametrize("n", [4, 64])
def test_the_divisor_is_nearly_one(n: int) -> None:
    for matrix in (drawn(n, n)[0], 1e6 * torch.eye(n).double()):
        assert 0 <= float(cosh_root(matrix, 1.5)) - 1 <= 1.4 * 1.5**2 / (2 * n * n) * (1 if n == 64 else 1.3)


def test_the_published_program_is_sgd_with_nesterov_momentum() -> None:
    weight, grads = drawn(64, 48, count=10)
    found = stepped(AuON, weight, grads, lr=0.1, momentum=0.9)[-1]
    parameter = torch.nn.Parameter(weight.clone())
    # Its average takes (1 - momentum) of a gradient, and looks ahead by as much of the average.
    m = torch.zeros_like(weight)
    place = weight.clone()
    for grad in grads:
        m = 0.9 * m + 0.1 * grad
        place -= 0.1 * (0.1 * grad + 0.9 * m)
    sgd = torch.optim.SGD([parameter], lr=0.01, momentum=0.9, nesterov=True)
    for grad in grads:
        parameter.grad = grad
        sgd.step()
    torch.testing.assert_close(parameter.detach(), place)
    change, reference = (found - weight).flatten(), (place - weight).flatten()
    assert float(torch.cosine_similarity(change, reference, dim=0)) > 1 - 1e-9
    torch.testing.assert_close(change, reference, rtol=1e-3, atol=0)


def test_the_paper_s_version_is_sgd_of_a_fixed_length() -> None:
    weight, grads = drawn(48, 12, count=3)
    places = [weight, *stepped(AuON, weight, grads, version="paper", lr=0.1)]
    for before, after in pairwise(places):
        assert abs(float((after - before).norm()) / (0.1 * 2) - 1) < 1e-3
    scaled = stepped(AuON, weight, [1e-6 * g for g in grads], version="paper", lr=0.1)
    torch.testing.assert_close(scaled[-1], places[-1])
