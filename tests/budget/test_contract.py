"""The solver against brute force, and the corrected weight against its normal equations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eckart.budget import ALLOCATIONS, Candidates, allocate

few = settings(deadline=None, max_examples=25)

many = settings(deadline=None, max_examples=60)

EVERY = pytest.mark.parametrize("allocation", ALLOCATIONS)


def candidates(*pairs: tuple[float, float]) -> Candidates:
    """From (cost, error) pairs, the dense matrix last."""
    costs, errors = zip(*pairs, strict=True)
    return Candidates(np.array(costs, dtype=float), np.array(errors, dtype=float))


def spent(sites: Sequence[Candidates], choice: Sequence[int]) -> float:
    return sum(float(c.costs[i]) for c, i in zip(sites, choice, strict=True))


def lost(sites: Sequence[Candidates], choice: Sequence[int]) -> float:
    return sum(float(c.errors[i]) for c, i in zip(sites, choice, strict=True))


def random_site(rng: np.random.Generator, count: int, convex: bool, unit: float = 1.0) -> Candidates:
    """A dense candidate and up to `count` cheaper ones; errors fall with the cost, not always convexly, some tie."""
    dense = int(rng.integers(20, 200))
    costs = np.append(np.sort(rng.choice(np.arange(1, dense), size=min(count, dense - 1), replace=False)), dense)
    if convex:
        errors = (dense - costs) ** 2.0 * rng.lognormal(sigma=2)
    else:
        errors = np.append(np.sort(np.round(rng.random(len(costs) - 1), 1))[::-1] * rng.lognormal(sigma=2), 0.0)
    return Candidates(costs * unit, errors)


def instance(seed: int, number: int = 4, count: int = 5, unit: float = 1.0) -> tuple[list[Candidates], float]:
    rng = np.random.default_rng(seed)
    sites = [random_site(rng, int(rng.integers(1, count + 1)), bool(rng.integers(2)), unit) for _ in range(number)]
    least, total = sum(c.costs.min() for c in sites), sum(c.costs[-1] for c in sites)
    return sites, float(least + rng.random() * (total - least))


def brute(sites: Sequence[Candidates], budget: float) -> float:
    choices = itertools.product(*(range(len(c.costs)) for c in sites))
    return min(lost(sites, choice) for choice in choices if spent(sites, choice) <= budget)


@many
@given(seed=st.integers(0, 10**6), unit=st.sampled_from([1.0, 1536.0, 1e7, 0.1]))
def test_exact_is_the_optimum(seed: int, unit: float) -> None:
    sites, budget = instance(seed, unit=unit)
    choice = allocate(sites, budget, "exact", floor=0)
    assert spent(sites, choice) <= budget
    assert lost(sites, choice) <= brute(sites, budget) * (1 + 2e-6)


@many
@given(seed=st.integers(0, 10**6))
@example(seed=3600)
def test_a_budget_that_is_just_met_is_met(seed: int) -> None:
    sites, budget = instance(seed, unit=1e6)
    choices = itertools.product(*(range(len(c.costs)) for c in sites))
    best = min((c for c in choices if spent(sites, c) <= budget), key=lambda c: lost(sites, c))
    # One byte less than the best choice of the wider budget costs, and exactly that.
    for tight in (spent(sites, best), spent(sites, best) - 1):
        if tight < sum(c.costs.min() for c in sites):
            continue
        choice = allocate(sites, tight, "exact", floor=0)
        assert spent(sites, choice) <= tight
        assert lost(sites, choice) <= brute(sites, tight) * (1 + 2e-6)


@few
@given(seed=st.integers(0, 10**6), floor=st.sampled_from([0.0, 0.1, 0.3]))
def test_no_allocation_overspends_and_exact_loses_least(seed: int, floor: float) -> None:
    sites, budget = instance(seed, number=12, count=20)
    losses = {}
    for name in ALLOCATIONS:
        choice = allocate(sites, budget, name, floor=floor)
        assert len(choice) == len(sites)
        assert all(0 <= i < len(c.costs) for c, i in zip(sites, choice, strict=True))
        assert spent(sites, choice) <= budget
        losses[name] = lost(sites, choice)
    assert losses["exact"] <= losses["greedy"] * (1 + 1e-12)
    assert losses["exact"] <= losses["uniform"] * (1 + 2e-6)


@few
@given(seed=st.integers(0, 10**6))
def test_greedy_is_optimal_where_its_budget_runs_out_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(50, 200, 4)
    shares = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    # Convex curves of equal steps, so that no step is left over: a budget of whole steps is used up.
    sites = [Candidates(shares * 100, (1 - shares) ** 2 * weight) for weight in dense]
    budget = 20.0 * int(rng.integers(4, 21))
    choice = allocate(sites, budget + 1e-6, "greedy", floor=0)
    assert lost(sites, choice) == pytest.approx(brute(sites, budget + 1e-6), rel=1e-12)


@few
@given(seed=st.integers(0, 10**6))
def test_uniform_keeps_equal_shares(seed: int) -> None:
    sites, budget = instance(seed, number=6, count=8)
    choice = allocate(sites, budget, "uniform", floor=0)
    # Some share lies at or above every chosen one and below the next larger of every site.
    chosen = [c.costs[i] / c.costs[-1] for c, i in zip(sites, choice, strict=True) if i > 0]
    larger = [c.costs[i + 1] / c.costs[-1] for c, i in zip(sites, choice, strict=True) if i + 1 < len(c.costs)]
    assert max(chosen, default=0) < min(larger, default=2)
    # And the next share would not fit.
    if larger:
        share = min(larger)
        wider = [max(0, int((c.costs <= share * c.costs[-1] * (1 + 1e-12)).sum()) - 1) for c in sites]
        assert spent(sites, wider) > budget


@EVERY
@few
@given(seed=st.integers(0, 10**6), floor=st.floats(0, 0.5))
def test_the_floor_is_kept_where_it_can_be_paid(allocation: str, seed: int, floor: float) -> None:
    sites, budget = instance(seed, number=6, count=12)
    total = sum(c.costs[-1] for c in sites)
    effective = min(floor, 0.5 * budget / total)
    affordable = sum(c.costs[c.costs >= effective * c.costs[-1]].min() for c in sites) <= budget
    choice = allocate(sites, budget, allocation, floor=floor)
    assert spent(sites, choice) <= budget
    if affordable:
        assert all(c.costs[i] >= effective * c.costs[-1] for c, i in zip(sites, choice, strict=True))


@EVERY
def test_a_floor_that_cannot_be_paid_gives_way(allocation: str) -> None:
    # Unsorted, and one candidate is dearer than the matrix itself.
    site = candidates((60, 1), (2, 9), (150, 0.5), (100, 0))
    choice = allocate([site, site], 70, allocation, floor=0.3)
    if allocation in ("uniform", "farms"):
        assert choice == [1, 1]
    else:  # one that looks at no error may stop at what it gives to all, or spend what is left
        assert sorted(choice) == [0, 1] or (ALLOCATIONS[allocation].blind and choice == [1, 1])


@EVERY
def test_a_budget_too_small_is_refused_with_the_least(allocation: str) -> None:
    site = candidates((1200, 3), (4000, 0))
    with pytest.raises(ValueError, match=r"2,399.*2,400.*30\.0%"):
        allocate([site, site], 2399, allocation)
    assert allocate([site, site], 2400, allocation) == [0, 0]


@EVERY
@few
@given(seed=st.integers(0, 10**6))
def test_everything_stays_dense_where_that_is_affordable(allocation: str, seed: int) -> None:
    sites, _ = instance(seed, number=5)
    total = float(sum(c.costs[-1] for c in sites))
    choice = allocate(sites, total, allocation)
    assert lost(sites, choice) == 0
    assert spent(sites, choice) <= total


@EVERY
def test_one_site(allocation: str) -> None:
    site = candidates((10, 6), (20, 3), (30, 1), (40, 0))
    for budget, index in ((10, 0), (19, 0), (20, 1), (39.9, 2), (40, 3), (1e9, 3)):
        assert allocate([site], budget, allocation) == [index]


@EVERY
def test_no_sites_and_dense_ones(allocation: str) -> None:
    assert allocate([], 10, allocation) == []
    assert allocate([candidates((40, 0))] * 3, 120, allocation) == [0, 0, 0]


@EVERY
def test_errors_that_are_all_zero(allocation: str) -> None:
    sites = [candidates((10, 0), (20, 0), (40, 0))] * 3
    assert spent(sites, allocate(sites, 60, allocation)) <= 60


@EVERY
def test_ties_are_kept_within_the_budget(allocation: str) -> None:
    sites = [candidates((10, 4), (10, 4), (20, 2), (20, 2), (40, 0))] * 5
    choice = allocate(sites, 100, allocation)
    assert spent(sites, choice) <= 100
    if allocation != "uniform":
        assert lost(sites, choice) == 10
    assert allocate(sites, 100, allocation) == choice


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
@EVERY
def test_the_scale_of_errors_does_not_matter(allocation: str, scale: float) -> None:
    sites, budget = instance(7, number=6, count=8)
    scaled = [Candidates(c.costs, c.errors * scale) for c in sites]
    one, other = allocate(sites, budget, allocation), allocate(scaled, budget, allocation)
    assert lost(sites, other) == pytest.approx(lost(sites, one), rel=1e-5)


def test_a_hollow_curve_is_not_taken_for_its_hull() -> None:
    # The hull jumps from 10 to 100; with 60 to spend, only the exact solution finds the candidate in the hollow.
    site = candidates((10, 100), (60, 90), (100, 0))
    assert allocate([site], 60, "greedy", floor=0) == [0]
    assert allocate([site], 60, "exact", floor=0) == [1]


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_many_sites_are_solved_in_seconds(noise: float) -> None:
    rng = np.random.default_rng(0)
    sites = []
    for _ in range(300):
        out, columns = rng.choice([192, 576, 1536], 2)
        ranks = np.linspace(8, min(out, columns) - 8, 60).astype(int)
        costs = np.append(ranks * (out + columns - ranks), out * columns) * 2.0
        errors = np.exp(-ranks / ranks[-1] * rng.uniform(1, 6)) * rng.lognormal(sigma=2)
        errors = errors * np.exp(noise * rng.standard_normal(len(ranks)))
        sites.append(Candidates(costs, np.append(errors, 0.0)))
    budget = 0.7 * sum(c.costs[-1] for c in sites)
    start = time.perf_counter()
    losses = {}
    for name in ALLOCATIONS:
        choice = allocate(sites, budget, name)
        assert 0.98 * budget < spent(sites, choice) <= budget or name == "uniform"
        losses[name] = lost(sites, choice)
    assert losses["exact"] <= losses["greedy"] <= losses["uniform"]
    assert time.perf_counter() - start < 45


def test_candidates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 costs.*1 errors"):
        Candidates(np.ones(2), np.ones(1))
    with pytest.raises(ValueError, match="0 costs"):
        Candidates(np.ones(0), np.ones(0))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            candidates((1, bad), (2, 0))
        with pytest.raises(ValueError, match="finite"):
            candidates((bad, 1), (2, 0))
    with pytest.raises(ValueError, match=r"'best'.*exact, farms, greedy, influence, threshold, uniform"):
        allocate([candidates((1, 0))], 1, "best")
