"""DSnoT against its algorithm row by row, and that no row gets worse by it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import eckart
from eckart import Metric, Statistics
from eckart.compressors._masks import share
from eckart.compressors.dsnot import refined
from eckart.compressors.wanda import scores
from eckart.ops.order_statistics import largest
from support import hard


def inputs(columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Second moment and mean of inputs that have one."""
    x = hard.normal(8 * columns, columns, seed=seed) @ hard.orthogonal(columns, seed) + hard.normal(columns, seed=seed)
    return x.T @ x / len(x), x.mean(0)


def exchanged(w: list[float], kept: set[int], worth: list[float], mean: list[float], var: list[float]) -> set[int]:
    """Algorithm 1 for one row."""
    kept, n = set(kept), len(w)
    error = sum(w[j] * mean[j] for j in range(n) if j not in kept)
    for _ in range(50):
        sign = 1 if error > 0 else -1
        back = [j for j in range(n) if j not in kept and sign * w[j] * mean[j] > 0]
        gone = [j for j in kept if sign * w[j] * mean[j] < 0]
        if not back or not gone:
            break
        j, k = max(back, key=lambda j: sign * w[j] * mean[j] / var[j]), min(gone, key=lambda k: worth[k])
        moved = error - w[j] * mean[j] + w[k] * mean[k]
        if moved * error <= 0:
            break
        kept, error = (kept | {j}) - {k}, moved
    return kept


@pytest.mark.parametrize("percent", [20, 50])
def test_refined_is_the_algorithm(percent: int) -> None:
    weight, (moment, mean) = hard.normal(30, 24, seed=1), inputs(24, 2)
    variance, worth = moment.diagonal() - mean.square(), scores(weight, moment)
    before = largest(worth, share(percent, 24))
    after = refined(weight, before, worth, mean, variance)
    assert not torch.equal(after, before)
    for i in range(30):
        kept = {j for j in range(24) if before[i, j]}
        expected = exchanged(weight[i].tolist(), kept, worth[i].tolist(), mean.tolist(), variance.tolist())
        assert {j for j in range(24) if after[i, j]} == expected
    assert torch.equal(after.sum(1), before.sum(1))
    errors = [(weight * mean).masked_fill(mask, 0.0).sum(1).abs() for mask in (before, after)]
    assert (errors[1] <= errors[0]).all()
    assert errors[1].sum() < errors[0].sum()


@pytest.mark.parametrize("seed", range(3))
def test_no_row_errs_more_than_with_wanda(seed: int) -> None:
    weight, (moment, mean) = hard.normal(30, 40, seed=seed), inputs(40, 10 + seed)
    statistics = Statistics(1, input_second_moment=moment, input_mean=mean)
    metric = Metric(right=moment)
    for percent in (30, 50, 70):
        ours, wanda = (
            weight - eckart.fit(weight, name, statistics=statistics, percent=percent).to_dense().detach()
            for name in ("dsnot", "wanda")
        )
        for i in range(30):
            assert float(metric.error(ours[i : i + 1])) <= float(metric.error(wanda[i : i + 1])) * (1 + 1e-12)
        assert float(metric.error(ours)) < float(metric.error(wanda))


def test_without_a_mean_nothing_is_exchanged() -> None:
    weight, (moment, _) = hard.normal(9, 30, seed=5), inputs(30, 6)
    statistics = Statistics(1, input_second_moment=moment, input_mean=torch.zeros(30).double())
    ours, wanda = (
        eckart.fit(weight, name, statistics=statistics, percent=50).to_dense() for name in ("dsnot", "wanda")
    )
    assert torch.equal(ours, wanda)
