"""Separable filters against the SVD of the rearranged filters."""

from __future__ import annotations

import torch

from eckart.compressors.spatial_svd import rearranged
from support.convolutions import family, normal_filters


def test_spatial_svd_is_the_best_separable_kernel_and_exact_at_full_rank() -> None:
    filters = normal_filters(8, 6, 3, 2)
    found = family("spatial-svd", filters)
    matrix = torch.einsum("ocyx->cyox", filters).reshape(18, 16)
    assert torch.equal(rearranged(filters), matrix)
    tails = torch.linalg.svdvals(matrix).square().flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(found.errors, tails[list(found.sizes)])
    torch.testing.assert_close(found.build(16).structure.to_dense().detach(), filters.flatten(1), rtol=1e-9, atol=1e-9)
