"""The matrices of `kfac` in two factors of 8 bits, against explicit square roots rounded by themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart import METHODS
from support.layers import layer, metric_of
from support.low_rank import square_root


def rounded(values: Tensor) -> Tensor:
    """The nearest point of an affine grid of 256 that covers zero and all of a row, whose groups of 64 are one each."""
    low, high = values.amin(1, keepdim=True).clamp_max(0), values.amax(1, keepdim=True).clamp_min(0)
    scale = (high - low) / 255
    zero = (-low / scale).round()
    return scale * ((values / scale + zero).round().clamp(0, 255) - zero)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)], ids=str)
def test_both_factors_are_rounded_optima_of_the_factored_fisher(shape: tuple[int, int]) -> None:
    weight, x, statistics = layer(*shape)
    metric = metric_of("kfac", statistics)
    assert metric.left is not None
    assert metric.right is not None
    left, right = square_root(metric.left), square_root(metric.right)
    u, s, vh = torch.linalg.svd(left @ weight @ right, full_matrices=False)
    family = METHODS["kfac-int8"].entry(weight, statistics)
    for rank in (2, 7, min(shape)):
        fitted = family.build(rank)
        first, second = (part.to_dense().detach() for part in fitted.structure.operands())
        optimum = torch.linalg.solve(left, u[:, :rank] * s[:rank] @ vh[:rank]) @ torch.linalg.inv(right)
        found = first @ second
        # What rounding to 256 points in a row changes is a few thousandths of each factor.
        assert float((found - optimum).norm()) < 0.01 * float(optimum.norm())
        assert fitted.error == pytest.approx(float(metric.error(weight - found)), rel=1e-6)
        if rank == min(shape):
            # Smaller ranks are slices, whose rows need not reach the ends of their grids.
            for factor in (first, second):
                torch.testing.assert_close(rounded(factor), factor, rtol=1e-6, atol=1e-9)
        assert fitted.bias is not None
        torch.testing.assert_close(fitted.bias, (weight - found) @ x.mean(0), rtol=1e-8, atol=1e-9)
