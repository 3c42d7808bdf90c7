"""Errors that are foreseen, against those that are measured."""

from __future__ import annotations

import pytest
import torch

from eckart import METHODS
from eckart.compressors._foreseen import conditional_variances, cut_off, narrowed, rounded
from eckart.linalg.low_rank import least_errors, project
from eckart.linalg.optimal_brain_surgery import DAMPING
from support import hard
from support.layers import layer, metric_of, statistics_of


def test_variances_are_those_of_inputs_whose_smaller_ones_are_given() -> None:
    _, x, _ = layer(12, 20)
    moment = x.T @ x / len(x)
    damped = moment + DAMPING * moment.diagonal().mean() * torch.eye(20, dtype=torch.float64)
    found = conditional_variances(moment)
    order = moment.diagonal().argsort(descending=True)
    for place, j in enumerate(order.tolist()):
        rest = order[place:]
        # The first of what is left, given the others: the inverse of the corner of the inverse.
        assert float(found[j]) == pytest.approx(1 / float(damped[rest][:, rest].inverse()[0, 0]))


@pytest.mark.parametrize("group", [64, 200])
def test_rounding_errs_about_as_much_as_is_foreseen(group: int) -> None:
    x, g = hard.normal(400, 200, seed=1) * torch.linspace(0.2, 3, 200), hard.normal(400, 40, seed=2)
    weight, statistics = hard.normal(40, 200, seed=3), statistics_of(x, g)
    metric = metric_of("kfac", statistics)
    variances = conditional_variances(x.T @ x / len(x))
    family = METHODS["gptq"].taking({"group": group}).entry(weight, statistics)
    foreseen = rounded(weight, metric.left.diagonal(), variances, family.sizes, group)
    for bits in family.sizes:
        measured = float(metric.error(weight - family.build(bits).structure.to_dense()))
        assert foreseen[bits] == pytest.approx(measured, rel=0.3)


def test_a_search_saves_most_where_bits_are_few_and_groups_large() -> None:
    assert narrowed(2, 256) < narrowed(2, 64) < narrowed(4, 64) < 1.1
    assert narrowed(8, 64) == pytest.approx(1, abs=0.1)


def test_what_is_cut_off_is_foreseen_exactly_where_inputs_have_nothing_to_do_with_each_other() -> None:
    weight, right = hard.normal(12, 40, seed=4), hard.normal(40, seed=5).square()
    left = hard.normal(12, seed=6).square()
    found = cut_off(weight, left, right, right, (25, 50), by_row=True)
    whole = cut_off(weight, left, torch.ones(40), right, (25,), by_row=False)
    for percent, error in found.items():
        cost = (weight.square() * right).sort(1).values[:, : 40 - percent * 40 // 100]
        assert error == pytest.approx(float(left @ cost.sum(1)))
    rest = weight.square() <= weight.square().flatten().sort().values[12 * 40 * 3 // 4 - 1]
    assert whole[25] == pytest.approx(float(left @ (weight.square() * right * rest).sum(1)))


def test_of_zeros_nothing_is_foreseen() -> None:
    ones = torch.ones(20, dtype=torch.float64)
    assert set(cut_off(torch.zeros(12, 20), ones[:12], ones, ones, (5, 95), by_row=True).values()) == {0.0}
    assert set(rounded(torch.zeros(12, 20), ones[:12], ones, (2, 8), 64).values()) == {0.0}


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_least_errors_are_those_of_the_projection(shape: tuple[int, int]) -> None:
    weight, _, statistics = layer(*shape)
    metric = metric_of("kfac", statistics)
    exact = project(weight, metric).errors
    torch.testing.assert_close(least_errors(weight, metric), exact, rtol=1e-9, atol=1e-12 * float(exact[0]))
    short = least_errors(weight.float(), metric)
    torch.testing.assert_close(short, exact, rtol=0, atol=1e-5 * float(exact[0]))
