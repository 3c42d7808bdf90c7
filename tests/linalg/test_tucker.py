"""Iterated Tucker decompositions are better than truncated ones, and are what plain steps give."""

from __future__ import annotations

import pytest
import torch

from eckart.linalg.tucker import core, hooi, leading, modes, orthogonal_iteration, projected, unfolded
from support.convolutions import normal_filters


def test_iteration_improves_on_the_truncated_decomposition() -> None:
    for seed in range(5):
        filters = normal_filters(10, 9, 3, 3, seed=seed)
        start = [leading(matrix, rank) for matrix, rank in zip(modes(filters), (4, 3), strict=True)]
        _, g, _ = hooi(filters, 4, 3)
        assert g.square().sum() > 1.0001 * core(filters, *start).square().sum()


def test_one_iteration_is_one_plain_step_for_each_mode() -> None:
    tensor, ranks = normal_filters(6, 5, 4, 3, 4), (2, 3, 2, 2, 3)
    bases = orthogonal_iteration(tensor, ranks, iterations=0).bases
    found = orthogonal_iteration(tensor, ranks, iterations=1)
    for mode, rank in enumerate(ranks):
        rest = tensor
        for k, basis in enumerate(bases):
            rest = rest if k == mode else projected(rest, k, basis)
        bases[mode] = torch.linalg.svd(unfolded(rest, mode))[0][:, :rank]
        plane = bases[mode] @ bases[mode].T
        torch.testing.assert_close(found.bases[mode] @ found.bases[mode].T, plane, rtol=1e-9, atol=1e-9)
    assert found.energies[1] > found.energies[0]


@pytest.mark.parametrize(("n", "m", "rank"), [(6, 20, 3), (20, 6, 3), (20, 6, 8)])
def test_leading_vectors_are_right_below_half_of_the_digits(n: int, m: int, rank: int) -> None:
    u, v = torch.linalg.qr(normal_filters(n, n))[0], torch.linalg.qr(normal_filters(m, m, seed=1))[0]
    sizes = torch.tensor([1, 1e-5, 1e-10, 1e-13, 0, 0], dtype=u.dtype)
    found = leading((u[:, :6] * sizes) @ v[:6], rank)
    torch.testing.assert_close(found.T @ found, torch.eye(rank, dtype=u.dtype))
    torch.testing.assert_close(found @ (found.T @ u[:, :3]), u[:, :3], rtol=0, atol=1e-4)
