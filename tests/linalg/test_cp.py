"""Sweeps of alternating least squares."""

from __future__ import annotations

from itertools import pairwise

import torch

from eckart.linalg.cp import sweep
from support.convolutions import normal_kernel


def test_sweeps_of_cp_never_go_up_and_state_their_error() -> None:
    kernel = normal_kernel(8, 7, 3, 2)
    factors = [normal_kernel(n, 12, seed=n) for n in kernel.shape]
    errors = []
    for _ in range(30):
        factors, error = sweep(kernel, factors)
        again = torch.einsum("or,cr,yr,xr->ocyx", *factors)
        torch.testing.assert_close(error, float((again - kernel).square().sum()), rtol=1e-8, atol=1e-8)
        errors.append(error)
    assert all(b <= a + 1e-9 for a, b in pairwise(errors))
