"""Magnitude pruning against a sort."""

from __future__ import annotations

import pytest
import torch

from eckart.compressors._masks import share
from support import hard
from support.pruning import fitted


@pytest.mark.parametrize("percent", [5, 50, 85])
def test_magnitude_keeps_the_largest_of_the_matrix(percent: int) -> None:
    weight = hard.normal(13, 22, seed=6)
    order = sorted(((abs(float(weight[i, j])), i, j) for i in range(13) for j in range(22)), reverse=True)
    expected = torch.zeros_like(weight)
    for _, i, j in order[: share(percent, 13 * 22)]:
        expected[i, j] = weight[i, j]
    assert torch.equal(fitted("magnitude", weight, torch.eye(22), percent), expected)
