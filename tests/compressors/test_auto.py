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


def test_inputs_that_share_a_scale_are_picked_too() -> None:
    weight, _, statistics = layer(8, 200)
    family = METHODS["auto"].entry(weight.float(), statistics)
    mine = [size for size in family.sizes if family.members[size][0] == "gptq"]
    family.measure_all()
    groups = set()
    for size in mine:
        structure = family.build(size).structure
        groups.add(structure.group)
        own = METHODS["gptq"].taking({"group": structure.group}).entry(weight.float(), statistics)
        alone = own.build(family.members[size][1]).structure
        assert torch.equal(structure.to_dense(), alone.to_dense())
        assert family.costs[size].bytes == structure.cost().bytes + 4 * len(weight)
    assert groups == {64, 128, 200}
    assert {family.members[size][1] for size in mine} == {2, 3, 4, 5, 6, 8}


def test_estimates_of_one_member_come_from_what_was_measured_of_it() -> None:
    weight, _, statistics = layer(8, 200)
    family = METHODS["auto"].entry(weight.float(), statistics)
    guessed = family.estimates()
    assert sum(family.members[i][0] == "gptq" for i in family.known) == 1
    for i, error in family.known.items():
        assert float(guessed[i]) == error
    mine = [i for i in family.sizes if family.members[i][0] == "gptq"]
    assert (guessed[mine].diff() < 0).all()
