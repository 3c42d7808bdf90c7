"""Plain SVD against the definition, and metrics of one's own."""

from __future__ import annotations

import pytest
import torch

import eckart
from eckart import METHODS, Statistics
from eckart.linalg import project
from support.layers import layer, metric_of
from support.low_rank import SHAPES, built


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_svd_is_the_truncated_svd(shape: tuple[int, int], rank: int) -> None:
    weight, _, statistics = layer(*shape)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    expected = u[:, :rank] * s[:rank] @ vh[:rank]
    torch.testing.assert_close(built("svd", weight, Statistics(), rank), expected, rtol=1e-9, atol=1e-10)
    family = METHODS.find("svd").entry(weight, statistics)
    tails = torch.stack([s[r:].square().sum() for r in family.sizes])
    torch.testing.assert_close(family.errors, tails, rtol=1e-9, atol=1e-10)


def test_a_metric_of_one_s_own_goes_with_svd() -> None:
    weight, _, statistics = layer(10, 14)
    metric = metric_of("kfac", statistics)
    structure = eckart.fit(weight, "svd", rank=4, metric=metric)
    torch.testing.assert_close(metric.error(weight - structure.to_dense()), project(weight, metric).errors[4])
    with pytest.raises(ValueError, match="makes its own"):
        eckart.fit(weight, "lord", rank=4, metric=metric, statistics=statistics)
