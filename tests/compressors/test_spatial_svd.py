"""Separable kernels against the SVD of the rearranged kernel."""

from __future__ import annotations

import torch

from eckart.compressors.spatial_svd import rearranged
from support.convolutions import family, normal_kernel


def test_spatial_svd_is_the_best_separable_kernel_and_exact_at_full_rank() -> None:
    kernel = normal_kernel(8, 6, 3, 2)
    found = family("spatial-svd", kernel)
    matrix = torch.einsum("ocyx->cyox", kernel).reshape(18, 16)
    assert torch.equal(rearranged(kernel), matrix)
    tails = torch.linalg.svdvals(matrix).square().flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(found.errors, tails[list(found.sizes)])
    torch.testing.assert_close(found.build(16).structure.to_dense().detach(), kernel.flatten(1), rtol=1e-9, atol=1e-9)
