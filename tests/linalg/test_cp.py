"""Sweeps of alternating least squares."""

from __future__ import annotations

from itertools import pairwise

import pytest
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


@pytest.mark.parametrize("shape", [(5, 4), (2, 6, 3), (3, 2, 2, 3, 4)], ids=str)
def test_a_tree_over_the_modes_has_the_iterates_of_plain_sweeps(shape: tuple[int, ...]) -> None:
    tensor = normal_filters(*shape)
    start = [normal_filters(n, 3, seed=n + k) for k, n in enumerate(shape)]
    found, _ = sweep(tensor, start, damping=0.0)
    plain = list(start)
    for mode, n in enumerate(shape):
        # Least squares on the outer products of the others' columns.
        design = torch.ones(1, 3, dtype=tensor.dtype)
        for k, factor in enumerate(plain):
            if k != mode:
                design = (design[:, None] * factor).flatten(0, 1)
        plain[mode] = torch.linalg.lstsq(design, tensor.movedim(mode, 0).reshape(n, -1).T).solution.T
    for ours, theirs in zip(found, plain, strict=True):
        lengths = torch.linalg.vector_norm(ours, dim=0) / torch.linalg.vector_norm(theirs, dim=0)
        torch.testing.assert_close(ours, theirs * lengths, rtol=1e-7, atol=1e-9)
