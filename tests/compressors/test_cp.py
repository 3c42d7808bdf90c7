"""CP against filters of its kind."""

from __future__ import annotations

import torch

from eckart.compressors.cp import expression as canonical
from eckart.linalg.cp import alternating
from support.convolutions import normal_filters


def test_cp_finds_a_kernel_of_its_kind() -> None:
    filters = torch.einsum("or,cr,yr,xr->ocyx", *(normal_filters(n, 2, seed=n) for n in (8, 7, 3, 2)))
    factors = alternating(filters, 2)
    again = torch.einsum("or,cr,yr,xr->ocyx", *factors)
    assert (again - filters).norm() <= 0.02 * filters.norm()
    torch.testing.assert_close(canonical(factors).to_dense().detach(), again.flatten(1), rtol=1e-9, atol=1e-9)
