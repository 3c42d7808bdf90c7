"""The candidates of several methods in one metric, against the methods by themselves."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS
from eckart.compressors.auto import MEMBERS
from support.layers import layer, metric_of


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_candidates_are_those_of_the_members_with_a_bias_for_the_mean(shape: tuple[int, int]) -> None:
    weight, x, statistics = layer(*shape)
    family = METHODS["auto"].entry(weight, statistics)
    metric = metric_of("kfac", statistics)
    seen = set()
    for size, cost, error in zip(family.sizes, family.costs, family.errors.tolist(), strict=True):
        name, own = family.members[size]
        seen.add(name)
        fitted = family.build(size)
        dense = fitted.structure.to_dense().detach()
        own_dense = METHODS[name].entry(weight, statistics).build(own).structure.to_dense().detach()
        # What is worse than nothing in this metric is nothing.
        worse = metric.error(weight - own_dense) > metric.error(weight)
        assert torch.equal(dense, torch.zeros_like(dense) if worse else own_dense)
        assert error == pytest.approx(float(metric.error(weight - dense)), rel=1e-6)
        assert fitted.bias is not None
        torch.testing.assert_close(fitted.bias, (weight - dense) @ x.mean(0), rtol=1e-8, atol=1e-9)
        assert cost.parameters == fitted.structure.cost().parameters + shape[0]
    assert seen == set(MEMBERS)
