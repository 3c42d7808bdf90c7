"""AWQ: its scales and its cut grids, written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import eckart
from eckart.compressors.awq import GROUP, cut
from eckart.compressors.rtn import round_to_nearest
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics
from eckart.structures import Chain, Diagonal, Quantized
from support import hard
from support.layers import layer


def of_inputs(x: Tensor) -> Statistics:
    return Statistics(len(x), input_second_moment=x.T @ x / len(x), input_abs_mean=x.abs().mean(0))


def uneven(columns: int) -> Tensor:
    """Inputs of which a few are much larger than the others."""
    x = hard.normal(300, columns, seed=4)
    x[:, ::17] *= 30
    return x


@pytest.mark.parametrize("bits", [3, 4])
def test_the_power_is_the_best_of_twenty(bits: int) -> None:
    weight, x = hard.normal(24, 100, seed=1), uneven(100)
    statistics = of_inputs(x)
    structure = eckart.fit(weight, "awq", bits=bits, statistics=statistics)
    assert isinstance(structure, Chain)
    codes, inverse = structure.operands()
    assert isinstance(codes, Quantized)
    assert isinstance(inverse, Diagonal)
    sizes, errors, scales = x.abs().mean(0), [], []
    for step in range(20):
        s = (sizes / sizes.max()) ** (step / 20)
        s = s / (s.min() * s.max()).sqrt()
        rounded = Quantized.quantize(weight * s, bits, 64).to_dense().detach() / s
        errors.append(float((x @ (weight - rounded).T).square().sum()))
        scales.append(s)
    best = min(range(20), key=errors.__getitem__)
    assert best > 0
    torch.testing.assert_close(1 / inverse.weight.detach(), scales[best], rtol=1e-12, atol=0)


def test_each_grid_is_the_best_of_eleven_for_its_inputs() -> None:
    weight, x, bits, group = hard.normal(3, 20, seed=2), hard.normal(50, 20, seed=3), 3, 8
    got = cut(weight, x.T @ x / 50, bits, torch.float64, group).to_dense().detach()
    for row in range(3):
        for start in range(0, 20, group):
            w, inputs = weight[row, start : start + group], x[:, start : start + group]
            found = []
            for step in range(11):
                share = 1 - step / 20
                low, high = min(0.0, float(w.min()) * share), max(0.0, float(w.max()) * share)
                scale = (high - low) / 7
                zero = round(-low / scale)
                rounded = scale * ((w / scale + zero).round().clamp(0, 7) - zero)
                found.append((float((inputs @ (w - rounded)).square().sum()), rounded))
            expected = min(found, key=lambda pair: pair[0])[1]
            torch.testing.assert_close(got[row, start : start + group], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_rounds_better_than_to_nearest_where_few_inputs_are_large(bits: int) -> None:
    weight, statistics = hard.normal(32, 128, seed=5), of_inputs(uneven(128))
    metric = Metric(right=statistics.input_second_moment)
    ours = eckart.fit(weight, "awq", bits=bits, statistics=statistics).to_dense()
    plain = round_to_nearest(weight, statistics).build(bits).structure.to_dense()
    assert metric.error(weight - ours) < 0.6 * metric.error(weight - plain)


def test_inputs_that_are_always_zero_and_equal_ones() -> None:
    weight, x, _ = layer(12, 20)
    x = x.clone()
    x[:, 3] = 0
    for inputs in (x, torch.zeros_like(x), torch.ones_like(x)):
        dense = eckart.fit(weight, "awq", bits=4, statistics=of_inputs(inputs)).to_dense()
        assert torch.isfinite(dense).all()


def test_costs_count_the_scales() -> None:
    weight, x, _ = layer(12, 20)
    cost = eckart.fit(weight.half(), "awq", bits=4, statistics=of_inputs(x)).cost()
    assert cost.bytes == 12 * 10 + 12 * (2 + 1) + 20 * 2
    assert GROUP == 64


def test_statistics_of_another_matrix_are_refused() -> None:
    weight, _, statistics = layer(12, 20)
    wrong = replace(statistics, input_abs_mean=torch.ones(5))
    with pytest.raises(eckart.Refused, match=r"shape \(5,\) does not fit a weight of shape \(12, 20\)"):
        eckart.fit(weight, "awq", bits=4, statistics=wrong)
