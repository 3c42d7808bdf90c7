"""Errors judged by a few of them: the estimates, and that what is picked was measured."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eckart.compressors._lazy import interpolated
from eckart.compressors._masks import PERCENT, cut_off
from eckart.compressors._one_by_one import BITS, OneByOne, rounding
from eckart.compressors.contract import METHODS, Family, lazy
from eckart.jobs.compress.choices import ROUNDS, settle
from eckart.jobs.compress.plan import Plan, make_plan
from eckart.models.sites import find_sites
from support import hard
from support.layers import layer, statistics_of
from support.tiny import tiny_llama


def plan_of(name: str, held_limit: int = 1 << 30) -> Plan:
    model = tiny_llama()
    sites = find_sites(model)
    given_ = {}
    for k, site in enumerate(sites):
        out, columns = site.shape
        mixing = hard.normal(columns, columns, seed=k) * hard.decaying(columns, 1.0)
        given_[site.name] = statistics_of(
            hard.normal(96, columns, seed=k) @ mixing.T, hard.normal(96, out, seed=k + 50)
        )
    plan = make_plan(model, sites, METHODS.find(name), given_)
    plan.held_limit = held_limit
    return plan


def whole(plan: Plan) -> Plan:
    """The same plan with all candidates measured, as many as there are."""
    twin = Plan(plan.method, plan.groups, plan.statistics, plan.totals)
    twin.fit()
    for group in plan.groups:
        family = plan.method.candidates(group.kind, plan.members(group))
        twin.curves[group.name].errors = [*family.errors.tolist(), 0.0]
        twin.curves[group.name].known = None
    return twin


def test_the_error_that_is_expected_of_normal_entries() -> None:
    z = hard.normal(200, 500).flatten()
    for percent in (10, 50, 90):
        least = z.abs().sort().values[: len(z) * (100 - percent) // 100]
        assert float(least.square().sum()) / len(z) == pytest.approx(cut_off(percent), rel=0.03)
    assert rounding(3) / rounding(4) == 4


@settings(max_examples=60, deadline=None)
@given(known=st.dictionaries(st.sampled_from(PERCENT), st.floats(0, 1e6), min_size=1))
def test_interpolated_errors(known: dict[int, float]) -> None:
    found = interpolated(PERCENT, cut_off, known)
    assert (found.diff() <= 0).all()
    for i, percent in enumerate(PERCENT):
        if percent in known:
            assert float(found[i]) == min(e for p, e in known.items() if p <= percent)
    if len(known) == 1:
        ((percent, error),) = known.items()
        for i, other in enumerate(PERCENT):
            assert float(found[i]) == pytest.approx(
                max(error, 1e-300) * cut_off(other) / cut_off(percent), rel=1e-9, abs=1e-290
            )


def test_interpolation_is_linear_in_logarithms() -> None:
    # e = c^2.5 of the expected error: any two sizes say all there is between them.
    exact = [rounding(bits) ** 2.5 for bits in BITS]
    found = interpolated(BITS, rounding, {2: exact[0], 8: exact[-1]})
    torch.testing.assert_close(found, torch.tensor(exact, dtype=torch.float64))
    assert interpolated([], rounding, {}).shape == (0,)


@pytest.mark.parametrize("name", ["gptq", "rtn", "llm-int8", "sparsegpt", "wanda", "magnitude"])
def test_one_fit_says_much_of_the_others(name: str) -> None:
    weight, _, statistics = layer(96, 128)
    family = METHODS[name].entry(weight, statistics)
    assert isinstance(family, OneByOne)
    estimates = family.estimates()
    assert len(family.known) == 1
    exact = METHODS[name].entry(weight, statistics).errors
    inner = slice(1, -1)
    assert (estimates / exact)[inner].log().abs().max() < math.log(4)
    assert torch.equal(family.errors, exact)


def test_settling_returns_the_best_that_was_measured() -> None:
    truth = {1: 5.0, 2: 3.0, 3: 4.0}
    guess = {1: 1.0, 2: 2.0, 3: 2.5}

    def solve() -> dict[str, int | None]:
        return {"w": min(guess, key=guess.__getitem__)}

    def measure(choice: dict[str, int | None]) -> int:
        size = choice["w"]
        assert size is not None
        fresh = guess[size] != truth[size]
        guess[size] = truth[size]
        return int(fresh)

    def error(choice: dict[str, int | None]) -> float:
        size = choice["w"]
        assert size is not None
        return truth[size]

    assert settle(solve, measure, error) == {"w": 2}


def test_settling_ends() -> None:
    solved: list[int] = []

    def solve() -> dict[str, int | None]:
        solved.append(len(solved))
        return {"w": solved[-1]}

    # Never content: the third choice is the best.
    found = settle(solve, lambda choice: 1, lambda choice: abs((choice["w"] or 0) - 2.0))
    assert found == {"w": 2}
    assert len(solved) == ROUNDS


@pytest.mark.parametrize(
    ("name", "of", "keep"), [("gptq", "bytes", 0.47), ("auto", "bytes", 0.5), ("auto", "macs", 0.7)]
)
def test_what_is_picked_was_measured_and_is_as_good_as_with_all_measured(name: str, of: str, keep: float) -> None:
    plan = plan_of(name)
    plan.fit()
    choice = plan.choose(keep, of, "greedy")
    exact = whole(plan)
    for site, size in choice.items():
        curve = plan.curves[site]
        assert curve.known is not None
        assert size is None or size in curve.known
    assert plan.error(choice) == pytest.approx(exact.error(choice))
    assert exact.error(choice) <= 1.03 * exact.error(exact.choose(keep, of, "greedy"))
    measured = sum(len(c.known) for c in plan.curves.values() if c.known is not None)
    assert measured < 0.8 * sum(len(c.members) for c in plan.curves.values())


def test_what_memory_does_not_hold_is_fitted_again() -> None:
    plans = plan_of("auto"), plan_of("auto", held_limit=0)
    choices = []
    for plan in plans:
        plan.fit()
        choices.append(plan.choose(0.5, "bytes"))
    assert choices[0] == choices[1]
    group = next(g for g in plans[0].groups if choices[0][g.name] is not None)
    size = choices[0][group.name]
    assert size is not None
    (first,), (second,) = (plan.build(group, size) for plan in plans)
    assert torch.equal(first.structure.to_dense(), second.structure.to_dense())
    assert first.error == second.error


def test_errors_measured_later_are_scaled_too() -> None:
    plan = plan_of("gptq")
    plan.fit()
    plan.scale({"gptq": 3.0})
    site = plan.sites[0].name
    plan._measure({s.name: 2 for s in plan.sites})
    curve = plan.curves[site]
    assert curve.known is not None
    assert curve.errors is not None
    assert curve.errors[curve.sizes.index(2)] == pytest.approx(3 * curve.known[2])
    assert curve.errors[-1] == 0


def test_families_of_one_decomposition_are_not_lazy() -> None:
    family: Family = METHODS["kfac"].entry(*layer(12, 20)[::2])
    assert not lazy(family)
    plan = plan_of("kfac")
    plan.fit()
    assert all(curve.known is None for curve in plan.curves.values())


def test_a_uniform_allocation_measures_nothing() -> None:
    plan = plan_of("gptq")
    plan.fit(errors=False)
    plan.choose(0.5, "bytes", "uniform")
    assert all(curve.known is None and curve.errors is None for curve in plan.curves.values())
