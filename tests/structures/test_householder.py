"""Products of reflections against reflections one by one."""

from __future__ import annotations

import torch

from eckart.structures import Householder
from support.one_layer import normal


def test_reflections_are_orthogonal_and_their_product() -> None:
    vectors = normal(4, 9).double()
    vectors[2] = 0
    dense = Householder(vectors).to_dense().detach()
    expected = torch.eye(9, dtype=torch.float64)
    for v in vectors:
        if v.any():
            expected = expected @ (torch.eye(9, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(dense, expected)
    torch.testing.assert_close(dense @ dense.T, torch.eye(9, dtype=torch.float64))
    torch.testing.assert_close(Householder(1e3 * vectors).to_dense(), dense)
    wide = Householder(normal(12, 9) * torch.tensor([0.0, 1e-30, 1e-18, 1e12]).repeat(3)[:, None])
    wide(normal(2, 9)).sum().backward()
    gradient = wide.vectors.grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
