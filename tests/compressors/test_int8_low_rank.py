"""Factors of 8 bits: errors, slices, dtypes, of both papers that have them."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS, Metric, Need, Statistics
from eckart.linalg import project
from support.codes import EIGHT
from support.layers import layer, metric_of

SHAPES = pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16), (9, 150), (140, 136)], ids=str)


def int8_metric(name: str, statistics: Statistics) -> Metric:
    return (
        Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT)) if name == "svd-int8" else metric_of("kfac", statistics)
    )


@SHAPES
@pytest.mark.parametrize("name", EIGHT)
def test_int8_errors_are_those_of_what_is_built(name: str, shape: tuple[int, int]) -> None:
    weight, x, statistics = layer(*shape)
    family, metric = METHODS[name].entry(weight, statistics), int8_metric(name, statistics)
    optimum = project(weight, metric).errors
    zero = float(metric.error(weight))
    assert family.zero_error == pytest.approx(zero)
    for size, error, cost in zip(family.sizes, family.errors, family.costs, strict=True):
        fitted = family.build(size)
        dense = fitted.structure.to_dense().detach()
        assert float(metric.error(weight - dense)) == pytest.approx(float(error), rel=1e-6, abs=1e-12 * zero)
        assert fitted.error == pytest.approx(float(error), rel=1e-9, abs=1e-12 * zero)
        assert torch.linalg.matrix_rank(dense) <= size
        assert cost.parameters >= size * sum(shape)
        # Rounding to 8 bits costs a ten-thousandth of what is kept, not more.
        assert float(optimum[size]) * (1 - 1e-9) <= float(error) <= float(optimum[size]) + 3e-4 * zero
        if name == "kfac-int8":
            assert fitted.bias is not None
            torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)


@SHAPES
@pytest.mark.parametrize("name", EIGHT)
def test_int8_ranks_are_slices_of_one_product(name: str, shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    family = METHODS[name].entry(weight.float(), statistics)
    sizes = list(family.sizes)
    left, right = family.build(sizes[-1]).structure.operands()
    for size in (sizes[0], sizes[len(sizes) // 2]):
        a, b = family.build(size).structure.operands()
        assert torch.equal(a.to_dense(), left.to_dense()[:, :size])
        assert torch.equal(b.to_dense(), right.to_dense()[:size])
        assert a.state_dict()["codes"].is_contiguous()
        assert a.state_dict()["codes"].untyped_storage().nbytes() == shape[0] * size
