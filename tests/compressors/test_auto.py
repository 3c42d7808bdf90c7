"""The candidates of several methods in one metric, against the methods by themselves."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS
from eckart.compressors.auto import MEMBERS
from support.layers import layer, metric_of
from support.tiny import VOCABULARY, tiny_llama


def ids(count: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, 48), generator=torch.Generator().manual_seed(0))


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


def test_nothing_is_fitted_before_it_is_asked_for() -> None:
    weight, _, statistics = layer(8, 200)
    family = METHODS["auto"].entry(weight.float(), statistics)
    guessed = family.estimates()
    assert not family.known
    measured = family.errors
    for i, (name, _) in enumerate(family.members):
        # A member that is taken for worse than it is would never be picked; pruning is taken for better.
        least, most = {"kfac": (0.999, 1.001), "gptq": (0.4, 2.0)}.get(name, (0.2, 1.5))
        assert least < float(guessed[i]) / float(measured[i]) < most


def test_estimates_of_one_member_come_from_what_was_measured_of_it() -> None:
    weight, _, statistics = layer(8, 200)
    family = METHODS["auto"].entry(weight.float(), statistics)
    mine = [i for i in family.sizes if family.members[i][0] == "gptq"]
    before = family.estimates()
    family.measure(mine[4])
    assert list(family.known) == mine[4:5]
    guessed = family.estimates()
    torch.testing.assert_close(guessed[mine], before[mine] * family.known[mine[4]] / before[mine[4]])
    others = [i for i in family.sizes if i not in mine]
    assert torch.equal(guessed[others], before[others])


def test_all_ranks_are_known_once_one_is() -> None:
    weight, _, statistics = layer(12, 20)
    family = METHODS["auto"].entry(weight, statistics)
    ranks = [i for i in family.sizes if family.members[i][0] == "kfac"]
    family.measure(ranks[0])
    assert list(family.known) == ranks


@pytest.mark.parametrize(("of", "keep"), [("bytes", 0.5), ("parameters", 0.7)])
def test_few_fits_do_nearly_as_well_as_all(of: str, keep: float) -> None:
    """What is picked by estimates, and measured when it is picked, errs hardly more than the best of all candidates."""
    plan = eckart.compress(tiny_llama(), "auto", keep=keep, of=of, calibration=ids(8)).plan

    def fits() -> int:
        each = [curve.members[i][0] for curve in plan.curves.values() for i in curve.known or ()]
        return sum(name != "kfac" for name in each)

    plan.scale({name: 1 / factor for name, factor in plan.factors.items()})
    found, fitted = plan.error(plan.choose(keep, of)), fits()
    for group in plan.groups:
        members = plan.members(group)
        family = plan.method.entry(members.weights[0], members.statistics[0])
        family.measure_all()
        plan.add(group, family)
    assert found <= 1.03 * plan.error(plan.choose(keep, of))
    assert fitted < 0.25 * fits()
