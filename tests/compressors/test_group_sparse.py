"""Groups of 16 inputs: which are kept, and that what is kept makes up for the others as well as it can."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eckart import METHODS, Metric, Statistics
from eckart.compressors._groups import SortedInputs
from eckart.structures import Chain, GroupSparse, Permutation
from support import hard
from support.pruning import correlated, fitted


def parts(weight: Tensor, moment: Tensor, percent: int) -> tuple[GroupSparse, Tensor]:
    family = METHODS["group-sparse"].entry(weight, Statistics(1, input_second_moment=moment))
    chain = family.build(percent).structure
    assert isinstance(chain, Chain)
    chain.check_values()
    sparse, order = chain.operands()
    assert isinstance(sparse, GroupSparse)
    assert isinstance(order, Permutation)
    return sparse, order.index.long()


@pytest.mark.parametrize("percent", [10, 50, 80])
@pytest.mark.parametrize("columns", [64, 70])
def test_the_groups_of_largest_norm_are_kept(percent: int, columns: int) -> None:
    weight, moment = hard.normal(9, columns, seed=1), correlated(columns)
    sparse, order = parts(weight, moment, percent)
    squares = weight.square() * moment.diagonal()
    assert order.tolist() == sorted(range(columns), key=lambda j: -float(squares[:, j].sum()))
    groups = [order[first : first + 16] for first in range(0, columns, 16)]
    worth = [(float(squares[i, group].sum()), i, g) for i in range(9) for g, group in enumerate(groups)]
    kept = sorted((i, g) for _, i, g in sorted(worth, reverse=True)[: percent * len(worth) // 100])
    rows = [i for i, count in enumerate(sparse.counts.tolist()) for _ in range(count)]
    assert list(zip(rows, sparse.places.tolist(), strict=True)) == kept


def test_every_input_makes_up_for_those_of_less_worth() -> None:
    weight, moment = hard.normal(6, 48, seed=2), correlated(48)
    inputs = SortedInputs.of(weight, moment)
    kept = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]]).bool()
    # From the last input on: after each that is dropped the optimum over all that come later, by normal equations.
    damped = inputs.moment + 1e-2 * inputs.moment.diagonal().mean() * torch.eye(48).double()
    expected = inputs.weight.clone()
    for i in range(6):
        for j in reversed(range(48)):
            if not kept[i, j // 16]:
                shift = torch.linalg.solve(damped[:j, :j], damped[:j, j]) if j else torch.zeros(0).double()
                expected[i, :j] += shift * expected[i, j]
                expected[i, j] = 0
    torch.testing.assert_close(inputs.pruned(kept), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_sorting_and_surgery_pay(seed: int, dtype: torch.dtype) -> None:
    weight, moment = hard.normal(40, 192, seed=seed).to(dtype), correlated(192, seed=20 + seed)
    metric = Metric(right=moment)

    def error(what: Tensor) -> float:
        return float(metric.error(weight.double() - what.double()))

    worth = (weight.double().square() * moment.diagonal()).view(40, 12, 16).sum(-1)
    for percent in (30, 50, 70):
        least = worth.flatten().sort(descending=True).values[percent * 480 // 100 - 1]
        unsorted = weight * (worth >= least).repeat_interleave(16, 1)
        inputs = SortedInputs.of(weight, moment)
        cut = torch.empty_like(weight)
        cut[:, inputs.order] = (inputs.weight * inputs.spread(inputs.kept(percent))).to(dtype)
        made = fitted("group-sparse", weight, moment, percent)
        assert error(made) < error(cut) < error(unsorted)


def test_where_nothing_was_seen_magnitudes_decide() -> None:
    weight = hard.normal(8, 96, seed=11)
    pruned = fitted("group-sparse", weight, torch.zeros(96, 96), 50)
    torch.testing.assert_close(pruned, torch.where(pruned == 0, 0.0, weight))
    assert (pruned != 0).sum() == 8 * 48
    assert weight[pruned == 0].square().mean() < weight[pruned != 0].square().mean()


def test_silent_inputs_go_first() -> None:
    weight, moment = hard.normal(8, 64, seed=11), correlated(64)
    weight[:, 3] *= 1e3
    moment[3, :] = moment[:, 3] = 0
    assert not fitted("group-sparse", weight, moment, 70)[:, 3].any()
