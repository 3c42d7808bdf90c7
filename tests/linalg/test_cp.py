"""Sweeps of alternating least squares."""

from __future__ import annotations

from itertools import pairwise

import torch

from eckart.linalg.cp import sweep
from support.convolutions import normal_filters


def test_sweeps_of_cp_never_go_up_and_state_their_error() -> None:
    filters = normal_filters(8, 7, 3, 2)
    factors = [normal_filters(n, 12, seed=n) for n in filters.shape]
    errors = []
    for _ in range(30):
        factors, error = sweep(filters, factors)
        again = torch.einsum("or,cr,yr,xr->ocyx", *factors)
        torch.testing.assert_close(error, float((again - filters).square().sum()), rtol=1e-8, atol=1e-8)
        errors.append(error)
    assert all(b <= a + 1e-9 for a, b in pairwise(errors))
