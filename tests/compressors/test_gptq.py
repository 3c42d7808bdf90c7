"""GPTQ against optimal brain surgery with explicit inverses."""

from __future__ import annotations

import pytest
import torch

from eckart.compressors.gptq import gptq, gptq_quantize
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics
from eckart.structures.quantized import Quantized
from support.quantizing import correlated, random


def test_gptq_chooses_grids_for_what_an_error_costs() -> None:
    # Inputs 0 to 7 hardly ever differ from zero: what is large there must not widen the grid of the others.
    weight, moment = random(30, 32), torch.diag(torch.tensor([1e-6] * 8 + [1.0] * 24))
    weight[:, :8] *= 2
    metric = Metric(right=moment)
    found = metric.error(weight - gptq_quantize(weight, moment, 3, 32, damping=1e-8).to_dense())
    rounded = metric.error(weight - Quantized.quantize(weight, 3, 32).to_dense())
    assert found < 0.6 * rounded


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [16, 64])
def test_gptq_is_no_worse_than_rounding(bits: int, group: int) -> None:
    weight, moment = random(24, 64), correlated(64)
    metric = Metric(right=moment)
    rounded = metric.error(weight - Quantized.quantize(weight, bits, group).to_dense())
    assert metric.error(weight - gptq_quantize(weight, moment, bits, group).to_dense()) < 0.7 * rounded


def test_gptq_is_optimal_brain_surgery_with_explicit_inverses() -> None:
    weight, moment, group, bits = random(6, 150, dtype=torch.float64), correlated(150), 16, 3
    quantized = gptq_quantize(weight, moment, bits, group)
    inverse = torch.linalg.inv(moment + 1e-2 * moment.diagonal().mean() * torch.eye(150, dtype=torch.float64))
    rest, rounded = weight.clone(), torch.zeros_like(weight)
    for j in sorted(range(150), key=lambda j: -float(moment[j, j])):
        scale, zero = quantized.scales[:, j // group].detach(), quantized.zeros[:, j // group]
        code = torch.clamp(torch.round(rest[:, j] / scale + zero), 0, 2**bits - 1)
        rounded[:, j] = scale * (code - zero)
        rest -= torch.outer(rest[:, j] - rounded[:, j], inverse[j] / inverse[j, j])
        inverse -= torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    torch.testing.assert_close(quantized.to_dense().detach(), rounded)


def test_uncorrelated_inputs_need_no_surgery() -> None:
    weight = random(5, 40)
    zero, identity = torch.zeros(40, 40), torch.eye(40)
    assert torch.equal(gptq_quantize(weight, zero, 4, 16).to_dense(), gptq_quantize(weight, identity, 4, 16).to_dense())


def test_a_family_states_the_error_of_what_it_builds() -> None:
    weight, moment = random(16, 64), correlated(64)
    family = gptq(weight, Statistics(400, input_second_moment=moment))
    alone = gptq_quantize(weight, moment, 4)
    assert torch.equal(family.build(4).structure.to_dense(), alone.to_dense())
    for size, error, cost in zip(family.sizes, family.errors, family.costs, strict=True):
        built = family.build(size).structure
        assert built.cost() == cost
        torch.testing.assert_close(Metric(right=moment).error(weight - built.to_dense()), error)
