"""Bilevel problems of blocks beside their solution in closed form, and the constant of the trackers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.optim.blockwise_bilevel import correction, solve_bilevel

BLOCKS, D, P = 4, 3, 2
G = torch.Generator().manual_seed(0)
B = torch.randn(BLOCKS, D, P, generator=G, dtype=torch.float64)
C = torch.randn(BLOCKS, D, generator=G, dtype=torch.float64)
ROOT = 0.3 * torch.randn(BLOCKS, D, D, generator=G, dtype=torch.float64)
A = ROOT @ ROOT.mT + torch.eye(D, dtype=torch.float64)


def noise(draw: int, i: int) -> Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)


def problem(scale: float = 0.0):  # type: ignore[no-untyped-def]
    """f_i = |y - c_i|^2 / 2 + |x|^2 / 20 and g_i = y A_i y / 2 - y (B_i x + noise), so that y_i = A_i^-1 B_i x."""

    def upper(x: Tensor, y: Tensor, i: int, draw: int) -> Tensor:
        return (y - C[i]).square().sum() / 2 + x.square().sum() / 20

    def lower(x: Tensor, y: Tensor, i: int, draw: int) -> Tensor:
        return y @ A[i] @ y / 2 - y @ (B[i] @ x + scale * noise(draw, i))

    return upper, lower


def closed() -> Tensor:
    maps = torch.linalg.solve(A, B)
    normal = (maps.mT @ maps).mean(0) + torch.eye(P).double() / 10
    return torch.linalg.solve(normal, (maps.mT @ C[..., None]).mean(0))[:, 0]


@pytest.mark.parametrize("picked", [BLOCKS, 2])
def test_it_comes_to_the_solution_in_closed_form(picked: int) -> None:
    start = torch.zeros(P, dtype=torch.float64), torch.zeros(BLOCKS, D, dtype=torch.float64)
    steps, lr = (200, 0.05) if picked == BLOCKS else (400, 0.02)
    found = solve_bilevel(*problem(), *start, steps=steps, picked=picked, lr=lr, lower_lr=0.2)
    torch.testing.assert_close(found.value.x, closed(), rtol=0, atol=1e-5 if picked == BLOCKS else 0.1)
    lowest = torch.linalg.solve(A, (B @ found.value.x)[..., None])[..., 0]
    torch.testing.assert_close(found.value.y, lowest, rtol=0, atol=1e-5 if picked == BLOCKS else 0.2)


def test_the_correction_makes_errors_and_changes_cancel_on_average() -> None:
    blocks, picked, alpha = 10, 3, 0.4
    p, gamma = picked / blocks, correction(blocks, picked, alpha)
    assert abs(p * (1 - alpha) * (gamma - 1 + alpha) - (1 - p)) < 1e-12
    assert correction(5, 5, alpha) == 1 - alpha


def test_bad_options_are_refused_and_divergence_is_told() -> None:
    start = torch.zeros(P, dtype=torch.float64), torch.zeros(BLOCKS, D, dtype=torch.float64)
    with pytest.raises(Refused, match=r"picked=5 is not in 1\.\.4"):
        solve_bilevel(*problem(), *start, picked=5)
    with pytest.raises(Refused, match="alpha=1"):
        solve_bilevel(*problem(), *start, alpha=1.0)
    found = solve_bilevel(*problem(), *start, picked=4, steps=60, lr=1e30, lower_lr=1e30)
    assert "diverged" in found.message
    assert torch.isfinite(found.value.x).all()
