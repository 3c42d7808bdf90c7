"""Matern kernels beside the formula with Bessel functions, and their second derivatives where points coincide."""

import numpy as np
import pytest
import torch
from scipy.special import gamma, kv

from eckart.kernels.matern import SMOOTHNESS, Matern


@pytest.mark.parametrize("nu", SMOOTHNESS)
def test_it_is_its_formula(nu: float) -> None:
    r = np.linspace(0.1, 4, 7)[:, None]
    a = np.sqrt(2 * nu) * r / 1.3
    expected = 2 ** (1 - nu) / gamma(nu) * a**nu * kv(nu, a)
    np.testing.assert_allclose(Matern(nu, 1.3)(r, np.zeros((1, 1))), expected, rtol=1e-12)


def test_second_derivatives_are_right_where_points_coincide() -> None:
    x, z = (torch.zeros(1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    (slope,) = torch.autograd.grad(Matern(2.5, 0.5)(x, z).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), z)
    assert float(slope.detach()) == 0
    assert float(bend.detach()) == pytest.approx(5 / 3 / 0.25)
