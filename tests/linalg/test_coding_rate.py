"""Coding rates by determinants written out, and plans whose rows and columns sum to one."""

from __future__ import annotations

import torch

from eckart.linalg.coding_rate import coding_rate, doubly_stochastic, grouped_rate


def test_rates_are_determinants_and_one_group_is_the_whole() -> None:
    z = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = torch.logdet(torch.eye(3) + 3 / (7 * 0.25) * z.T @ z) / 2
    torch.testing.assert_close(coding_rate(z, 0.5), whole)
    torch.testing.assert_close(coding_rate(z.T.contiguous(), 0.5), torch.logdet(torch.eye(3) + 7 / 0.75 * z.T @ z) / 2)
    torch.testing.assert_close(grouped_rate(z, torch.full((7, 7), 1 / 7, dtype=z.dtype), 0.5), whole)
    g = torch.softmax(z @ z.T, 0)
    each = [torch.logdet(torch.eye(3) + 12 * (z.T * g[:, j]) @ z) / 2 for j in range(7)]
    torch.testing.assert_close(grouped_rate(z, g, 0.5), torch.stack(each).mean())


def test_a_plan_is_doubly_stochastic_symmetric_and_a_scaling() -> None:
    z = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = doubly_stochastic(z @ z.T, 0.5, steps=200)
    ones = torch.ones(9, dtype=z.dtype)
    torch.testing.assert_close(found.sum(0), ones)
    torch.testing.assert_close(found.sum(1), ones)
    rest = found.log() - z @ z.T / 0.5
    torch.testing.assert_close(rest - rest[:1], (rest[:, :1] - rest[0, 0]).expand(9, 9))
