"""Dion: two steps written out, a momentum of low rank, and one of zeros."""

from __future__ import annotations

import numpy as np
import torch

from eckart.optim.dion import Dion
from support.stepping import drawn, stepped


def test_two_steps_written_out() -> None:
    for m, n in ((9, 5), (5, 9)):
        weight, grads = drawn(m, n, count=2)
        generator = torch.Generator().manual_seed(0)
        right = torch.randn(n, 3, generator=generator).double().numpy()
        momentum, place = np.zeros((m, n)), weight.numpy().copy()
        for grad in grads:
            momentum = momentum + grad.numpy()
            left = np.linalg.qr(momentum @ right)[0]
            part = momentum.T @ left
            momentum = momentum - 0.1 * left @ part.T
            right = part / np.linalg.norm(part, axis=0)
            place = place - 0.1 * (m / n) ** 0.5 * left @ right.T
        found = stepped(Dion, weight, grads, rank=3, momentum=0.9, lr=0.1, weight_decay=0.0)[-1]
        torch.testing.assert_close(found, torch.from_numpy(place))


def test_a_constant_gradient_of_low_rank_is_orthonormalised() -> None:
    weight, (a, b) = drawn(8, 8, count=2)
    grad = a[:, :2] @ b[:2]
    u, _, vt = torch.linalg.svd(grad)
    places = stepped(Dion, weight, [grad] * 60, rank=2, lr=0.1, weight_decay=0.0)
    torch.testing.assert_close((places[-2] - places[-1]) / 0.1, u[:, :2] @ vt[:2], rtol=1e-3, atol=1e-3)


def test_what_the_rank_leaves_out_is_used_later() -> None:
    weight, _ = drawn(6, 6, count=0)
    grad = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64))
    zero = torch.zeros_like(grad)
    places = stepped(Dion, weight, [grad, *[zero] * 60], rank=1, momentum=0.5, weight_decay=0.0)
    change = (weight - places[-1]).diagonal()
    assert (change[:3] > 0.005).all()
    assert float(change[3:].abs().max()) < 1e-9
