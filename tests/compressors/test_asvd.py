"""ASVD against the paper's formula."""

from __future__ import annotations

import pytest
import torch

from support.layers import layer
from support.low_rank import SHAPES, built, weighted


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_asvd_is_the_paper_s_formula(shape: tuple[int, int], rank: int) -> None:
    weight, x, statistics = layer(*shape)
    magnitude = x.abs().mean(0)
    scale = (magnitude + 1e-6 * magnitude.mean()).sqrt().diag()
    expected = weighted(weight, torch.eye(shape[0]).double(), scale, rank)
    torch.testing.assert_close(built("asvd", weight, statistics, rank), expected, rtol=1e-8, atol=1e-9)
