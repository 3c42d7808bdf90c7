"""NF4 against the published code."""

from __future__ import annotations

import pytest
import torch

import eckart
from support import hard
from support.codes import nearest


def test_nf4_is_the_nearest_level_of_the_published_code() -> None:
    # The table of the paper's appendix E.
    published = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                 -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                 0.7229568362236023, 1.0]  # fmt: skip
    weight = hard.normal(6, 150)
    weight[2, 64:128] = 0
    structure = eckart.fit(weight, "nf4", bits=4)
    expected = nearest(weight, torch.tensor(published, dtype=torch.float64), 64)
    torch.testing.assert_close(structure.to_dense().detach(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nf4_takes_four_bits_a_scale_for_64_and_a_codebook(dtype: torch.dtype) -> None:
    structure = eckart.fit(hard.normal(32, 256).to(dtype), "nf4", bits=4)
    assert structure.cost().bytes == 32 * 256 // 2 + (32 * 256 // 64 + 16) * dtype.itemsize
