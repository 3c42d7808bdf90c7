"""Squared distances: exact at duplicates, in many dimensions and far from the origin, differentiable at zero."""

import pytest
import torch

from eckart.linalg.distances import SMALL, squared_distances


@pytest.mark.parametrize("d", [1, 5, 100])
def test_they_are_those_of_differences(d: int) -> None:
    x = torch.randn(9, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)) + 1e4
    x[3] = x[5]
    x[7] = x[6] + 1e-6
    z = x[2:6]
    found = squared_distances(x, z)
    expected = (x[:, None] - z).square().sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert (found[expected == 0] == 0).all()
    assert (squared_distances(x).diagonal() == 0).all()


@pytest.mark.parametrize("d", [2, SMALL + 1])
def test_gradients_are_right_to_the_second_order_at_zero_too(d: int) -> None:
    x = torch.randn(2, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = torch.cat([x[:1].clone(), x[1:] + 1])
    inputs = (x.requires_grad_(), z.requires_grad_())
    assert torch.autograd.gradcheck(squared_distances, inputs)
    assert torch.autograd.gradgradcheck(squared_distances, inputs)
