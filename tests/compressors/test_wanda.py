"""Wanda against a sort of each row, and of every four neighbours."""

from __future__ import annotations

import pytest
import torch

from eckart.compressors._masks import share
from eckart.compressors.contract import METHODS
from eckart.statistics import Statistics
from support import hard
from support.pruning import correlated, fitted


@pytest.mark.parametrize("percent", [5, 50, 85])
def test_wanda_is_a_sort_of_each_row(percent: int) -> None:
    weight, moment = hard.normal(13, 22, seed=6), correlated(22)
    expected = torch.zeros_like(weight)
    for i in range(13):
        order = sorted(range(22), key=lambda j: -abs(float(weight[i, j])) * float(moment[j, j]) ** 0.5)
        for j in order[: share(percent, 22)]:
            expected[i, j] = weight[i, j]
    assert torch.equal(fitted("wanda", weight, moment, percent), expected)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_of_four_neighbours_the_best_are_kept(kept: int) -> None:
    weight, moment = hard.normal(5, 23, seed=7), correlated(23)
    for name, norm in (("magnitude-semi", torch.ones(23).double()), ("wanda-semi", moment.diagonal().sqrt())):
        expected = torch.zeros_like(weight)
        for i in range(5):
            for first in range(0, 23, 4):
                group = range(first, min(first + 4, 23))
                for j in sorted(group, key=lambda j: -abs(float(weight[i, j] * norm[j])))[:kept]:
                    expected[i, j] = weight[i, j]
        assert torch.equal(fitted(name, weight, moment, kept), expected)


@pytest.mark.parametrize(("name", "size"), [("wanda", 50), ("wanda-semi", 2)])
def test_the_diagonal_alone_keeps_the_same_and_measures_errors_by_it(name: str, size: int) -> None:
    """As statistics of very many inputs are kept, see `SecondMoment`."""
    weight, moment = hard.normal(5, 24, seed=7), correlated(24)
    fit = METHODS.find(name).entry
    known = [Statistics(input_second_moment=each) for each in (moment, moment.diagonal())]
    whole, diagonal = (fit(weight, statistics).build(size) for statistics in known)
    kept = diagonal.structure.to_dense().detach()
    assert torch.equal(kept, whole.structure.to_dense())
    assert diagonal.error == pytest.approx(float(((weight - kept).square() * moment.diagonal()).sum()))
