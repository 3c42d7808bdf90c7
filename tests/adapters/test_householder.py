"""Householder adapters: the diagonal holds the singular values of the change."""

from __future__ import annotations

import pytest
import torch

from eckart.structures import Chain, Diagonal
from support.one_layer import normal, only, start, stirred


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)])
def test_householder_has_the_singular_values_that_are_on_its_diagonal(shape: tuple[int, int]) -> None:
    path = start("householder", normal(*shape)).path
    assert isinstance(path, Chain)
    stirred(path)
    diagonal = only(path, Diagonal).weight.detach()
    first, last = path.operands()[0].to_dense(), path.operands()[-1].to_dense()
    middle = torch.zeros(shape)
    middle.diagonal().copy_(diagonal)  # type: ignore[arg-type]
    torch.testing.assert_close(path.to_dense(), first @ middle @ last, atol=1e-5, rtol=1e-5)
    found = torch.linalg.svdvals(path.to_dense().detach())
    torch.testing.assert_close(found, diagonal.abs().sort(descending=True).values, atol=1e-5, rtol=1e-5)  # type: ignore[operator]
