"""FWSVD against the paper's formula."""

from __future__ import annotations

import pytest
import torch

from eckart import Need
from support.layers import layer
from support.low_rank import SHAPES, built


@SHAPES
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_fwsvd_is_the_paper_s_formula(shape: tuple[int, int], rank: int) -> None:
    weight, _, statistics = layer(*shape)
    # The paper's W is (in, out): its rows are weighted by the root of their summed Fisher information.
    fisher = statistics.get(Need.FISHER_COLUMNS)
    d = (fisher + 1e-6 * fisher.mean()).sqrt()
    u, s, vh = torch.linalg.svd(d[:, None] * weight.T, full_matrices=False)
    expected = (u[:, :rank] / d[:, None] * s[:rank] @ vh[:rank]).T
    torch.testing.assert_close(built("fwsvd", weight, statistics, rank), expected, rtol=1e-8, atol=1e-9)
