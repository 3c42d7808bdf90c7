"""SNELL against distances of its factors."""

from __future__ import annotations

import pytest
import torch

from eckart.structures import Kernelized
from support.one_layer import IN, OUT, normal, start, stirred


@pytest.mark.parametrize("rank", [4, 5])
def test_snell_keeps_the_largest_tenth_of_a_kernel(rank: int) -> None:
    path = start("snell", normal(OUT, IN), rank).path
    assert isinstance(path, Kernelized)
    stirred(path)
    (a, a2), (b, b2) = path.left.detach().double(), path.right.detach().double()
    assert a.shape == (OUT, (rank + 1) // 2)
    kernel = 0.1 * (torch.cdist(a, b) - torch.cdist(a2, b2))
    kept = round(0.1 * OUT * IN)
    limit = kernel.abs().flatten().sort().values[-kept]
    dense = path.to_dense().detach().double()
    assert int((dense != 0).sum()) == kept
    torch.testing.assert_close(dense, kernel * (kernel.abs() >= limit), atol=1e-6, rtol=1e-5)
    # The slopes are those that autograd finds; what does not act has none.
    leaves = [leaf.detach().double().requires_grad_() for leaf in (path.left, path.right)]
    (a, a2), (b, b2) = leaves
    kernel = 0.1 * (torch.cdist(a, b) - torch.cdist(a2, b2))
    toward = normal(OUT, IN, seed=2)
    wanted = torch.autograd.grad((kernel * (dense != 0) * toward).sum(), leaves)
    found = torch.autograd.grad((path.to_dense() * toward).sum(), [path.left, path.right])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)
    # In bfloat16 arithmetic the distances are still those of the factors.
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(path.to_dense(), dense.float())
    # Full rank from thin factors, which is what the kernel is for.
    path.kept.fill_(OUT * IN)
    assert torch.linalg.matrix_rank(path.to_dense().detach().double()) > 2 * rank
