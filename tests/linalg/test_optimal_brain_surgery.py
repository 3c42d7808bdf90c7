"""The factor of an inverse."""

from __future__ import annotations

import torch

from eckart.linalg.optimal_brain_surgery import inverse_factor
from support.quantizing import correlated


def test_inverse_factor() -> None:
    moment = correlated(30)
    factor = inverse_factor(moment, 0.1)
    damped = moment + 0.1 * moment.diagonal().mean() * torch.eye(30, dtype=torch.float64)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(30, dtype=torch.float64), atol=1e-9, rtol=0)
