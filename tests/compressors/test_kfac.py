"""Low rank under the factored Fisher against explicit square roots."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS
from support.layers import layer, metric_of
from support.low_rank import SHAPES, square_root, weighted


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 7])
def test_kfac_is_the_two_sided_optimum(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    out, columns = shape
    metric = metric_of("kfac", statistics)
    assert metric.left is not None
    assert metric.right is not None
    expected = weighted(weight, square_root(metric.left), square_root(metric.right), rank)
    family = METHODS.find("kfac").entry(weight, statistics)
    fitted = family.build(rank)
    dense = fitted.structure.to_dense().detach()
    torch.testing.assert_close(dense, expected, rtol=1e-7, atol=1e-8)
    assert fitted.bias is not None
    torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)
    assert fitted.structure.cost().parameters == rank * (out + columns - rank)
    assert family.costs[list(family.sizes).index(rank)].parameters == rank * (out + columns - rank) + out
