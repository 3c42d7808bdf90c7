"""Decompositions of many blocks at once, against one by one."""

from __future__ import annotations

import pytest
import torch

from eckart.linalg.batched_svd import batched_svd
from support import hard


def test_batched_svd_of_one_block_and_of_many() -> None:
    blocks = hard.normal(2, 3, 5, 4)
    left, right, tails = batched_svd(blocks)
    torch.testing.assert_close(left @ right, blocks)
    for r in range(5):
        rest = sum(float(torch.linalg.svdvals(blocks[i, j])[r:].square().sum()) for i in range(2) for j in range(3))
        assert float(tails[r]) == pytest.approx(rest, abs=1e-12)
        error = (blocks - left[..., :r] @ right[..., :r, :]).square().sum()
        assert float(error) == pytest.approx(rest, abs=1e-12)
    torch.testing.assert_close(left.square().sum(-2), right.square().sum(-1))
    with pytest.raises(ValueError, match=r"overflows float64: entries of the weight are up to .*e\+20"):
        batched_svd(1e200 * blocks)
