"""The k-th largest against a sort."""

from __future__ import annotations

import pytest
import torch

from eckart.ops.order_statistics import kth_largest


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_kth_largest_is_that_of_sorted_rows(dtype: torch.dtype) -> None:
    values = torch.randint(-3, 4, (5, 12), generator=torch.Generator().manual_seed(0)).to(dtype) / 4
    for view in (values, values.T, values[:, ::2]):
        for k in range(1, view.shape[1] + 1):
            found = kth_largest(view, k)
            assert found.dtype == dtype
            assert torch.equal(found, view.sort(1, descending=True).values[:, k - 1 : k])
