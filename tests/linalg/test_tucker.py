"""Iterated Tucker decompositions are better than truncated ones."""

from __future__ import annotations

from eckart.linalg.tucker import core, hooi, leading, modes
from support.convolutions import normal_filters


def test_iteration_improves_on_the_truncated_decomposition() -> None:
    for seed in range(5):
        filters = normal_filters(10, 9, 3, 3, seed=seed)
        start = [leading(matrix, rank) for matrix, rank in zip(modes(filters), (4, 3), strict=True)]
        _, g, _ = hooi(filters, 4, 3)
        assert g.square().sum() > 1.0001 * core(filters, *start).square().sum()
